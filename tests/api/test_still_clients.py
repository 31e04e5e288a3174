"""Clients that keep still in the middle of something are given up; who is slow, or has nothing to say, is not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.ide_house import SWITCHED, App, IdeHouse, Seen, Wire
from tests.refagent_process import until

HOST = IdeMode.HOST
SHORT = {"CLIENT_IDLE_SECONDS": "0.4"}
PATIENT = {"CLIENT_IDLE_SECONDS": "5"}
"""For who is not to be given up, or not yet: longer than a busy machine may hold up this process."""
SLOWLY_SECONDS = 7.0
"""Longer than PATIENT."""
SHORT_HEADS = {"REQUEST_HEAD_SECONDS": "2"}
"""As long as it may be: the house's own calls have no more time between a connection and their head."""
FLOOD_BYTES = 32 << 20


async def told(wire: Wire) -> Any:
    """The body of the 408 with which the connection ends."""
    async with asyncio.timeout(20):
        got = await wire.answer()
        assert await wire.until_closed() == b""
    assert got.status == 408, got
    assert got.value("Connection") == "close"
    body = json.loads(got.body)
    assert body["code"] == "request_timeout"
    return body


async def until_nothing_is_left(ide: IdeHouse) -> None:
    async def nothing_is_left() -> bool:
        services = ide.house.services
        return not (
            ide.app.open
            or services.ide.upstreams._open
            or services.lifecycle.requests_under_way
            or ide.house.server._server._connections
        )

    await until(nothing_is_left)


async def while_time_passes(seconds: float, action: Any) -> None:
    """`action` again and again, with a pause in between, for so long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def is_over() -> bool:
        await action()
        return loop.time() >= end

    await until(is_over, seconds=seconds + 20)


async def nothing() -> None:
    """What a connection does on which there is nothing to say."""


def call(ide: IdeHouse, method: str = "POST", length: int = 100) -> bytes:
    return (
        f"{method} /api/auth/{'login' if method == 'POST' else 'me'} HTTP/1.1\r\nHost: 127.0.0.1:{ide.port}\r\n"
        f"Authorization: Bearer {ide.house.ada_token}\r\nContent-Type: application/json\r\n"
        f"X-Request-Id: mine\r\nOrigin: https://portal.example\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


# -- heads -------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=60)
async def test_a_head_that_does_not_come_to_its_end_is_given_up_however_it_drips(database: Database) -> None:
    async with IdeHouse(database, settings=SHORT_HEADS) as ide:
        still = await ide.connect(b"GET /healthz HTTP/1.1\r\nHost: ")
        assert (await told(still))["requestId"] is None
        dripping = await ide.connect(b"GET /healthz HTTP/1.1\r\nX-Drip: ")
        answer = asyncio.create_task(dripping.head())

        async def is_answered() -> bool:
            if not answer.done():
                dripping.writer.write(b"a")
            return answer.done()

        await until(is_answered)
        assert (await answer).status == 408
        dripping.close()


@pytest.mark.gen_test(timeout=60)
async def test_a_connection_on_which_nothing_is_asked_ends_without_a_word(database: Database) -> None:
    async with IdeHouse(database, settings=SHORT_HEADS) as ide:
        wire = await ide.connect()
        async with asyncio.timeout(20):
            assert await wire.until_closed() == b""
        wire = await ide.connect(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await wire.answer()).status == 200
        async with asyncio.timeout(20):
            assert await wire.until_closed() == b""


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.gen_test(timeout=60)
async def test_a_call_whose_body_keeps_still_is_told_and_counted(database: Database, method: str) -> None:
    async with IdeHouse(database, settings=SHORT) as ide:
        wire = await ide.connect()
        await wire.send(call(ide, method) + b"{")
        async with asyncio.timeout(20):
            got = await wire.answer()
            assert await wire.until_closed() == b""
        body = json.loads(got.body)
        assert (got.status, body["code"], body["requestId"]) == (408, "request_timeout", "mine")
        assert got.value("Access-Control-Allow-Origin") == "https://portal.example"
        await until_nothing_is_left(ide)
        lines = (await ide.house.call("GET", "/metrics")).raw.decode().split("\n")
        assert [line.split(" ")[-1] for line in lines if 'status="408"' in line and "_total{" in line] == ["1.0"]


@pytest.mark.gen_test(timeout=60)
async def test_a_call_may_not_drip_for_ever(database: Database) -> None:
    async with IdeHouse(database, settings={"REQUEST_BODY_SECONDS": "0.4"}) as ide:
        wire = await ide.connect()
        await wire.send(call(ide, length=10_000))
        answer = asyncio.create_task(wire.answer())

        async def is_answered() -> bool:
            if not answer.done():
                wire.writer.write(b" ")
            return answer.done()

        await until(is_answered)
        assert (await answer).status == 408
        wire.close()


@pytest.mark.parametrize("framing", [{"Content-Length": "100"}, {"Transfer-Encoding": "chunked"}])
@pytest.mark.gen_test(timeout=60)
async def test_an_ides_body_that_never_begins_never_meets_the_app(database: Database, framing: dict[str, str]) -> None:
    async with IdeHouse(database, settings=SHORT) as ide:
        headers = {"Origin": ide.origin(HOST), "X-Request-Id": "mine", **framing}
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        await wire.send(ide.request(HOST, method="POST", cookie=cookie, headers=headers))
        assert (await told(wire))["requestId"] == "mine"
        await until_nothing_is_left(ide)
        assert ide.app.connections == 0


@pytest.mark.parametrize(
    ("framing", "begun", "rest"),
    [
        ({"Content-Length": "1000000"}, b"hello", b""),
        ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n", b""),
        ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n", b"9"),
        ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n", b"5\r\nhello"),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_an_ides_body_that_keeps_still_lets_the_app_go(
    database: Database, framing: dict[str, str], begun: bytes, rest: bytes
) -> None:
    arrived = asyncio.Event()

    async def taking(_seen: Seen, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            arrived.set()
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=taking), settings=PATIENT) as ide:
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        headers = {"Origin": ide.origin(HOST), **framing}
        await wire.send(ide.request(HOST, method="POST", cookie=cookie, headers=headers))

        async def has_arrived() -> bool:
            await wire.send(begun)
            return arrived.is_set()

        await until(has_arrived)
        await wire.send(rest)
        await told(wire)
        await until_nothing_is_left(ide)


@pytest.mark.gen_test(timeout=60)
async def test_a_body_that_moves_may_be_as_slow_as_it_likes(database: Database) -> None:
    async with IdeHouse(database, settings=PATIENT) as ide:
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        headers = {"Origin": ide.origin(HOST), "Transfer-Encoding": "chunked"}
        await wire.send(ide.request(HOST, method="PUT", cookie=cookie, headers=headers))
        await while_time_passes(SLOWLY_SECONDS, lambda: wire.send(b"1\r\na\r\n"))
        await wire.send(b"0\r\n\r\n")
        assert (await wire.answer()).status == 200
        wire.close()


# -- answers -----------------------------------------------------------------------------------------------------------


async def flooding(_seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FLOOD_BYTES)
    for _ in range(FLOOD_BYTES >> 16):
        writer.write(bytes(1 << 16))
        await writer.drain()


@pytest.mark.gen_test(timeout=60)
async def test_an_ides_answer_that_is_not_taken_is_cut_and_lets_the_app_go(database: Database) -> None:
    async with IdeHouse(database, App(answering=flooding), settings=SHORT) as ide:
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        await wire.send(ide.request(HOST, cookie=cookie))
        await wire.head()
        await until_nothing_is_left(ide)
        async with asyncio.timeout(20):
            assert len(await wire.until_closed()) < FLOOD_BYTES


@pytest.mark.parametrize("of_the_app", [True, False])
@pytest.mark.gen_test(timeout=60)
async def test_answers_that_are_complete_and_not_taken_are_cut_too(database: Database, of_the_app: bool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + bytes(1 << 16)
    async with IdeHouse(database, App(answer), settings=SHORT) as ide:
        asked = b"GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        if of_the_app:
            asked = ide.request(HOST, cookie=await ide.cookie(HOST))
        wire = await ide.connect()
        wire.writer.write(asked * 1000)  # each is answered when the one before has gone out
        await until(lambda: has_begun(wire))
        await until_nothing_is_left(ide)
        wire.close()


async def has_begun(wire: Wire) -> bool:
    return bool(wire.reader._buffer)  # type: ignore[attr-defined]


@pytest.mark.gen_test(timeout=60)
async def test_an_answer_that_is_taken_slowly_arrives_whole(database: Database) -> None:
    async with IdeHouse(database, App(answering=flooding), settings=PATIENT) as ide:
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        await wire.send(ide.request(HOST, cookie=cookie))
        await wire.head()
        taken = 0

        async def take() -> None:
            nonlocal taken
            taken += len(await wire.reader.read(1 << 16))

        await while_time_passes(SLOWLY_SECONDS, take)
        assert taken < FLOOD_BYTES
        await wire.reader.readexactly(FLOOD_BYTES - taken)
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_streams_on_which_nothing_is_said_stay(database: Database) -> None:
    go_on = asyncio.Event()

    async def speaking_twice(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "socket" in seen.line:
            writer.write(SWITCHED)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 8\r\n\r\none\n")
        await go_on.wait()
        writer.write(b"two\n")

    async with IdeHouse(database, App(answering=speaking_twice), settings=SHORT) as ide:
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        await wire.send(ide.request(HOST, cookie=cookie))
        await wire.head()
        assert await wire.reader.readexactly(4) == b"one\n"
        own = await ide.connect()
        bearer = f"Authorization: Bearer {ide.house.ada_token}"
        await own.send(f"GET /api/events HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n\r\n".encode())
        await own.head()
        socket, switched = await ide.websocket(HOST, cookie=cookie)
        assert switched.status == 101
        waiting = await ide.connect()
        await waiting.send(ide.request(HOST, "/waits", cookie=cookie))
        await while_time_passes(1.5, nothing)
        go_on.set()
        async with asyncio.timeout(20):
            assert await wire.reader.readexactly(4) == b"two\n"
            assert await socket.reader.readexactly(4) == b"two\n"
            assert (await waiting.answer()).status == 200
        assert not own.reader.at_eof()
        for each in (wire, own, socket, waiting):
            each.close()
