"""HTTP through the IDE's proxy: framing, streaming, pace, and what is said when the app does not keep its side."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.fakes import FakeClock
from tests.ide_house import OK, App, IdeHouse, Seen
from tests.refagent_process import until

HOST = IdeMode.HOST


def keep_connections(ide: IdeHouse) -> None:
    """Those to the app, however long a test is held up: for them, no time passes."""
    ide.house.services.ide.upstreams.now = FakeClock().monotonic


def reply(head: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {head}\r\n\r\n".encode("latin-1") + body


@pytest.mark.parametrize(
    ("answer", "status", "body", "framing"),
    [
        (reply("200 OK\r\nContent-Length: 5", b"hello"), 200, b"hello", "Content-Length"),
        (reply("200 OK\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"), 200, b"hello", "Transfer-Encoding"),
        (
            reply("200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
            200,
            b"hello",
            "Transfer-Encoding",
        ),
        (reply("404 Nicht da\r\nContent-Length: 2", b"no"), 404, b"no", "Content-Length"),
        (reply("204 No Content"), 204, b"", None),
        (reply("204 No Content\r\nContent-Length: 0"), 204, b"", None),
        (reply("304 Not Modified\r\nContent-Length: 99\r\nETag: W/\"1\""), 304, b"", "Content-Length"),
        (reply("100 Continue") + reply("103 Early Hints\r\nLink: x") + OK, 200, b"ok", "Content-Length"),
        (reply("599 Strange\r\nContent-Length: 0"), 599, b"", "Content-Length"),
    ],
)  # fmt: skip
@pytest.mark.gen_test(timeout=60)
async def test_an_answer_passes_with_its_framing(
    database: Database, answer: bytes, status: int, body: bytes, framing: str | None
) -> None:
    async with IdeHouse(database, App(answer)) as ide:
        keep_connections(ide)
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        for _ in range(2):  # the connection can be used again: nothing is left over
            await wire.send(ide.request(HOST, cookie=cookie))
            got = await wire.answer()
            assert (got.status, got.body) == (status, body)
            for name in ("Content-Length", "Transfer-Encoding"):
                assert bool(got.values(name)) == (name == framing), got.head
        wire.close()
        assert ide.app.connections == 1


@pytest.mark.gen_test(timeout=60)
async def test_an_answer_to_head_has_no_body_whatever_it_says(database: Database) -> None:
    async with IdeHouse(database, App(reply("200 OK\r\nContent-Length: 500"))) as ide:
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        for _ in range(2):
            await wire.send(ide.request(HOST, method="HEAD", cookie=cookie))
            got = await wire.answer(to_head=True)
            assert (got.status, got.value("Content-Length")) == (200, "500")
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_an_answer_that_ends_with_the_connection_passes_whole(database: Database) -> None:
    async def closing(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", b"all of it"))
        writer.close()

    async with IdeHouse(database, App(answering=closing)) as ide:
        cookie = await ide.cookie(HOST)
        assert (await ide.ask(HOST, cookie=cookie)).body == b"all of it"
        old = f"GET / HTTP/1.0\r\nHost: {ide.host(HOST)}\r\nCookie: {cookie}\r\n\r\n".encode()
        wire = await ide.connect()
        await wire.send(old)
        assert (await wire.until_closed()).endswith(b"\r\n\r\nall of it")


@pytest.mark.gen_test(timeout=60)
async def test_an_answer_arrives_piece_by_piece_as_it_is_made(database: Database) -> None:
    go_on = asyncio.Event()

    async def streaming(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            reply("200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked", b"4\r\none\n\r\n")
        )
        await go_on.wait()
        writer.write(b"4\r\ntwo\n\r\n0\r\n\r\n")

    async with IdeHouse(database, App(answering=streaming)) as ide:
        wire = await ide.connect()
        await wire.send(ide.request(HOST, cookie=await ide.cookie(HOST)))
        await wire.head()
        assert await wire.reader.readexactly(9) == b"4\r\none\n\r\n"
        go_on.set()
        assert await wire.reader.readexactly(14) == b"4\r\ntwo\n\r\n0\r\n\r\n"
        wire.close()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.gen_test(timeout=60)
async def test_a_body_passes_with_its_framing(database: Database, chunked: bool) -> None:
    async with IdeHouse(database) as ide:
        body = bytes(range(256)) * 4096
        cookie = await ide.cookie(HOST)
        headers = {"Origin": ide.origin(HOST)}
        if chunked:
            wire = await ide.connect()
            await wire.send(
                ide.request(HOST, method="PUT", cookie=cookie, headers={**headers, "Transfer-Encoding": "chunked"})
            )
            for start in range(0, len(body), 100_000):
                piece = body[start : start + 100_000]
                await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await wire.send(b"0\r\n\r\n")
            got = await wire.answer()
            wire.close()
        else:
            got = await ide.ask(HOST, method="PUT", cookie=cookie, headers=headers, body=body)
        assert got.status == 200
        assert ide.app.seen[-1].body == body
        assert bool(ide.app.seen[-1].values("Content-Length")) is not chunked


@pytest.mark.gen_test(timeout=60)
async def test_a_body_is_asked_for_when_the_client_waits_for_that(database: Database) -> None:
    async with IdeHouse(database) as ide:
        wire = await ide.connect()
        headers = {"Origin": ide.origin(HOST), "Expect": "100-continue", "Content-Length": "5"}
        await wire.send(ide.request(HOST, method="POST", cookie=await ide.cookie(HOST), headers=headers))
        assert (await wire.head()).status == 100
        await wire.send(b"hello")
        assert (await wire.answer()).status == 200
        assert ide.app.seen[-1].body == b"hello"
        assert ide.app.seen[-1].values("Expect") == []
        await wire.send(ide.request(HOST, method="POST", headers=headers))  # no cookie: not asked for
        assert (await wire.head()).status == 401
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_an_early_answer_reaches_a_client_that_still_sends(database: Database) -> None:
    async def refusing(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("413 Too large\r\nContent-Length: 4\r\nConnection: close", b"much"))
        await writer.drain()
        writer.close()

    async with IdeHouse(database, App(answering=refusing)) as ide:
        wire = await ide.connect()
        headers = {"Origin": ide.origin(HOST), "Content-Length": str(32 << 20)}
        await wire.send(ide.request(HOST, method="POST", cookie=await ide.cookie(HOST), headers=headers))

        async def sending() -> None:
            with contextlib.suppress(OSError):
                for _ in range(32):
                    await wire.send(bytes(1 << 20))

        sender = asyncio.create_task(sending())
        got = await wire.answer()
        assert (got.status, got.body) == (413, b"much")
        await sender
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_a_slow_reader_holds_the_app_back(database: Database) -> None:
    sent = 0

    async def flooding(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(high=1 << 16)
        writer.write(reply(f"200 OK\r\nContent-Length: {1 << 30}"))
        for _ in range(1 << 10):
            writer.write(bytes(1 << 20))
            sent += 1 << 20
            await writer.drain()

    async with IdeHouse(database, App(answering=flooding)) as ide:
        wire = await ide.connect()
        await wire.send(ide.request(HOST, cookie=await ide.cookie(HOST)))
        await wire.head()
        seen = -1

        async def stands_still() -> bool:
            nonlocal seen
            before, seen = seen, sent
            await asyncio.sleep(0.2)
            return before == sent

        await until(stands_still)
        assert sent < 64 << 20  # what the buffers of five sockets hold
        wire.close()

        async def let_go() -> bool:
            return not ide.app.open

        await until(let_go)


@pytest.mark.gen_test(timeout=60)
async def test_a_client_that_goes_away_lets_the_app_go(database: Database) -> None:
    asked = asyncio.Event()

    async def silent(_seen: Seen, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=silent)) as ide:
        wire = await ide.connect()
        await wire.send(ide.request(HOST, cookie=await ide.cookie(HOST)))
        await asked.wait()
        wire.close()

        async def let_go() -> bool:
            return not ide.app.open and ide.house.services.lifecycle.requests_under_way == 0

        await until(let_go)


# -- an app that does not keep its side --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        reply("200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
        reply("200 OK\r\nContent-Length: 5\r\nContent-Length: 6", b"hello"),
        reply("200 OK\r\nTransfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
        reply("200 OK\r\nX : y\r\nContent-Length: 0"),
        reply("200 OK\r\nX: a\r\n b\r\nContent-Length: 0"),
        reply("101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"),
        reply("100 Continue") * 20,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        b"",
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_nonsense_of_the_app_is_a_502(database: Database, answer: bytes) -> None:
    async def saying(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with IdeHouse(database, App(answering=saying)) as ide:
        got = await ide.ask(HOST, cookie=await ide.cookie(HOST))
        assert got.status == 502, got
        assert int(got.value("Retry-After")) > 0
        assert got.value("Content-Type").startswith("application/json")


@pytest.mark.parametrize(
    "answer",
    [
        reply("200 OK\r\nContent-Length: 50", b"half"),
        reply("200 OK\r\nTransfer-Encoding: chunked", b"4\r\nhalf\r\n"),
        reply("200 OK\r\nTransfer-Encoding: chunked", b"4\r\nhalf\r\nzz\r\n"),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_an_answer_that_breaks_off_is_not_made_to_look_whole(database: Database, answer: bytes) -> None:
    async def breaking(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with IdeHouse(database, App(answering=breaking)) as ide:
        wire = await ide.connect()
        await wire.send(ide.request(HOST, cookie=await ide.cookie(HOST)))
        got = await wire.head()
        assert got.status == 200, (got.head, await wire.until_closed())
        rest = await wire.until_closed()
        assert b"half" in rest
        assert not rest.endswith(b"0\r\n\r\n")


class Stale:
    """Answers once on each connection, keeps it open, and closes it at the second request's arrival, unanswered."""

    def __init__(self) -> None:
        self.app = App(answering=self._serve)
        self._served: set[asyncio.StreamWriter] = set()

    async def _serve(self, _seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer in self._served:
            writer.close()
            raise asyncio.IncompleteReadError(b"", None)
        self._served.add(writer)
        writer.write(OK)
        await writer.drain()


@pytest.mark.gen_test(timeout=60)
async def test_a_stale_connection_costs_a_safe_request_nothing(database: Database) -> None:
    stale = Stale()
    async with IdeHouse(database, stale.app) as ide:
        keep_connections(ide)
        cookie = await ide.cookie(HOST)
        for _ in range(3):
            assert (await ide.ask(HOST, cookie=cookie)).status == 200
        assert stale.app.connections == 3
        assert len(stale.app.seen) == 5  # the second and the third were tried on the stale one first


@pytest.mark.gen_test(timeout=60)
async def test_what_is_not_safe_is_sent_once_and_on_a_fresh_connection(database: Database) -> None:
    stale = Stale()
    async with IdeHouse(database, stale.app) as ide:
        keep_connections(ide)
        cookie = await ide.cookie(HOST)
        headers = {"Origin": ide.origin(HOST)}
        assert (await ide.ask(HOST, cookie=cookie)).status == 200
        got = await ide.ask(HOST, method="POST", cookie=cookie, headers=headers)
        assert got.status == 200
        assert [seen.line.split(" ")[0] for seen in stale.app.seen] == ["GET", "POST"]

    async def dying(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=dying), vmid=202) as ide:
        cookie = await ide.cookie(HOST)
        got = await ide.ask(HOST, method="POST", cookie=cookie, headers={"Origin": ide.origin(HOST)})
        assert (got.status, len(ide.app.seen)) == (502, 1)
