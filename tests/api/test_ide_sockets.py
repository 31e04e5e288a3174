"""Websockets through the IDE: the app's handshake as it is, bytes as they are, and their end."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.ide_house import OK, SWITCHED, App, IdeHouse, Seen, echo
from tests.refagent_process import until

HOST = IdeMode.HOST


@pytest.mark.gen_test(timeout=60)
async def test_the_handshake_passes_both_ways_with_what_it_negotiates(database: Database) -> None:
    async def agreeing(_seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agreed = b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: b\r\nX-App: 1\r\n\r\n"
        writer.write(SWITCHED[:-2] + agreed + b"\x81\x02hi")
        await reader.read()
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=agreeing)) as ide:
        offered = {
            "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
            "Sec-WebSocket-Protocol": "a, b",
        }
        wire, got = await ide.websocket(HOST, "/x?reconnection=true", cookie=await ide.cookie(HOST), headers=offered)
        seen = ide.app.seen[-1]
        assert seen.line == "GET /x?reconnection=true HTTP/1.1"
        assert seen.values("Host") == [ide.host(HOST)]
        assert seen.values("Origin") == [ide.origin(HOST)]
        assert seen.values("Upgrade") == ["websocket"]
        assert seen.values("Connection") == ["Upgrade"]
        assert seen.values("Sec-WebSocket-Key") == ["dGhlIHNhbXBsZSBub25jZQ=="]
        for name, value in offered.items():
            assert seen.values(name) == [value]
        assert got.value("Sec-WebSocket-Extensions") == "permessage-deflate"
        assert got.value("Sec-WebSocket-Protocol") == "b"
        assert got.value("Upgrade") == "websocket"
        assert await wire.reader.readexactly(4) == b"\x81\x02hi"  # what came with the handshake
        wire.close()


@pytest.mark.parametrize("status", [401, 403, 404, 426, 500])
@pytest.mark.gen_test(timeout=60)
async def test_a_refusal_of_the_app_reaches_the_browser_and_the_connection_stays(
    database: Database, status: int
) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 4\r\nX-App: 1\r\n\r\nnope".encode()
    async with IdeHouse(database, App(answer)) as ide:
        cookie = await ide.cookie(HOST)
        wire, head = await ide.websocket(HOST, cookie=cookie)
        assert (head.status, head.value("X-App")) == (status, "1")
        assert await wire.reader.readexactly(4) == b"nope"
        ide.app.answer = OK
        await wire.send(ide.request(HOST, cookie=cookie))
        assert (await wire.answer()).body == b"ok"
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_an_app_that_is_away_is_a_plain_503(database: Database) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(HOST)
        await ide.app.stop()
        wire, got = await ide.websocket(HOST, cookie=cookie)
        assert got.status == 503
        assert int(got.value("Retry-After")) > 0
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_frames_of_any_size_pass_at_the_pace_of_the_slower_side(database: Database) -> None:
    """A file of 24 MB is saved in one message: no limit may stand in its way, and nothing may pile up."""
    go_on = asyncio.Event()
    got = bytearray()

    async def slow(_seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCHED)
        await go_on.wait()
        while piece := await reader.read(1 << 16):
            got.extend(piece)
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=slow)) as ide:
        wire, _ = await ide.websocket(HOST, cookie=await ide.cookie(HOST))
        message = bytes(range(256)) * (26 << 12)
        sending = asyncio.create_task(wire.send(message))
        metrics = (await ide.house.call("GET", "/metrics")).raw
        assert b"\ncontrolplane_ide_websockets 1.0\n" in metrics
        done, _ = await asyncio.wait((sending,), timeout=0.3)
        assert not done  # held back by the app that does not read
        go_on.set()
        await sending

        async def arrived() -> bool:
            return len(got) == len(message)

        await until(arrived)
        assert bytes(got) == message
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_the_apps_last_words_arrive_and_then_both_sides_are_closed(database: Database) -> None:
    async def leaving(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCHED + b"x" * 1_000_000 + b"\x88\x00")
        await writer.drain()
        writer.close()
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=leaving)) as ide:
        wire, _ = await ide.websocket(HOST, cookie=await ide.cookie(HOST))
        await wire.send(b"y" * 1000)
        assert await wire.until_closed() == b"x" * 1_000_000 + b"\x88\x00"
        await until(lambda: _is_empty(ide))


@pytest.mark.gen_test(timeout=60)
async def test_a_browser_that_goes_closes_the_apps_side_whole(database: Database) -> None:
    """code-server does not notice a peer that is half closed: only a reset or an end of both sides tells it."""
    ended = asyncio.Event()

    async def talking(_seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCHED)
        assert await reader.read() == b"\x88\x80abcd"
        try:
            while True:  # what it still says is not taken for ever
                writer.write(b"z" * 1000)
                await writer.drain()
                await asyncio.sleep(0)
        except OSError:
            ended.set()
            raise

    async with IdeHouse(database, App(answering=talking)) as ide:
        wire, _ = await ide.websocket(HOST, cookie=await ide.cookie(HOST))
        await wire.send(b"\x88\x80abcd")
        wire.writer.write_eof()
        await ended.wait()
        wire.close()
        await until(lambda: _is_empty(ide))


@pytest.mark.gen_test(timeout=60)
async def test_stopping_closes_what_is_open(database: Database) -> None:
    async with IdeHouse(database, App(answering=echo)) as ide:
        wire, _ = await ide.websocket(HOST, cookie=await ide.cookie(HOST))
        await ide.house.server.drain(limit_seconds=1)
        assert await wire.until_closed() == b""


async def _is_empty(ide: IdeHouse) -> bool:
    return len(ide.house.services.ide.splices) == 0 and not ide.app.open
