"""A connection's order of events: fragments, pings, closes and congestion, over a real pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from controlplane.proxying.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, build_frame, close_payload
from controlplane.proxying.websocket import FRAMES_PER_TURN, WRITE_HIGH_BYTES, WebSocket

KEY = b"\x09\x08\x07\x06"
LIMIT = 1000


class Server(WebSocket):
    def __init__(self) -> None:
        super().__init__(is_client=False, message_limit_bytes=LIMIT)
        self.messages: list[tuple[bytes, bool]] = []
        self.code: int | None = None
        self.writable_again = asyncio.Event()
        self._news = asyncio.Event()

    def message_received(self, message: bytes, *, is_text: bool) -> None:
        self.messages.append((message, is_text))
        self._news.set()

    def writable(self) -> None:
        self.writable_again.set()

    def closed(self, code: int) -> None:
        self.code = code
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Server, asyncio.StreamReader, asyncio.StreamWriter]]:
    """The server's side, and the client's bytes."""
    ours, theirs = socket.socketpair()
    transport, server = await asyncio.get_running_loop().connect_accepted_socket(Server, ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        yield server, reader, writer
    finally:
        transport.abort()
        writer.close()
        for _ in range(3):
            await asyncio.sleep(0)


def masked(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    frame = bytearray(build_frame(opcode, payload, key=KEY))
    if not is_final:
        frame[0] &= 0x7F
    return bytes(frame)


async def ends_with(reader: asyncio.StreamReader, code: int) -> None:
    """The next frame is a close with this code, and then the connection ends."""
    async with asyncio.timeout(30):
        head = await reader.readexactly(2)
        assert head[0] & 0x0F == CLOSE
        payload = await reader.readexactly(head[1])
        assert int.from_bytes(payload[:2], "big") == code


@pytest.mark.gen_test
async def test_a_message_in_fragments_with_a_ping_between_them_is_one_message() -> None:
    async with pair() as (server, reader, writer):
        for byte in (
            masked(TEXT, b"hel", is_final=False)
            + masked(PING, b"still there?")
            + masked(CONTINUATION, b"lo", is_final=False)
            + masked(CONTINUATION, b"")
            + masked(BINARY, b"\x00")
        ):
            writer.write(bytes([byte]))
            await writer.drain()
        assert await reader.readexactly(14) == build_frame(PONG, b"still there?")
        await server.until(lambda: len(server.messages) == 2)
        assert server.messages == [(b"hello", True), (b"\x00", False)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(CONTINUATION, b"x"), 1002),
        (masked(TEXT, b"x", is_final=False) + masked(TEXT, b"y"), 1002),
        (masked(TEXT, b"x" * (LIMIT + 1)), 1009),
        (masked(TEXT, b"x" * LIMIT, is_final=False) + masked(CONTINUATION, b"y"), 1009),
        (masked(TEXT, b"", is_final=False) + LIMIT * masked(CONTINUATION, b"", is_final=False), 1009),
        (b"\xc1\x81" + KEY + b"x", 1002),  # compressed, unasked
        (build_frame(TEXT, b"x"), 1002),  # not masked
        (masked(CLOSE, close_payload(4001, "bye")), 4001),
    ],
)
@pytest.mark.gen_test
async def test_what_breaks_the_protocol_and_a_close_are_answered_by_a_close(data: bytes, code: int) -> None:
    async with pair() as (server, reader, writer):
        writer.write(data)
        await ends_with(reader, code)
        writer.write(masked(TEXT, b"too late"))
        writer.close()
        await server.until(lambda: server.code is not None)
        assert server.code == code
        assert server.messages == []


@pytest.mark.gen_test
async def test_a_peer_that_reads_nothing_is_congested_and_gets_no_pongs_until_it_reads() -> None:
    async with pair() as (server, reader, writer):
        frame = build_frame(BINARY, b"x" * 50_000)
        while not server.is_congested:
            server.send_frame(frame)
            await asyncio.sleep(0)
        assert server.transport is not None
        held = server.transport.get_write_buffer_size()
        assert held <= WRITE_HIGH_BYTES + len(frame)
        server.ping()
        assert server.pings == 0
        writer.write(masked(PING, b"p") * 100 + masked(TEXT, b"seen"))
        await server.until(lambda: bool(server.messages))
        assert server.transport.get_write_buffer_size() <= held
        async with asyncio.timeout(30):
            while not server.writable_again.is_set():
                await reader.read(1 << 20)
        assert not server.is_congested


@pytest.mark.gen_test
async def test_thousands_of_frames_in_one_read_leave_others_their_turn() -> None:
    async with pair() as (server, _, writer):
        between: list[int] = []

        def look() -> None:
            between.append(len(server.messages))
            if len(server.messages) < 10_000:
                asyncio.get_running_loop().call_soon(look)

        server.data_received(b"".join(masked(TEXT, b"%d" % number) for number in range(9_000)))
        assert len(server.messages) == FRAMES_PER_TURN
        look()
        writer.write(b"".join(masked(TEXT, b"%d" % number) for number in range(9_000, 10_000)))
        await server.until(lambda: len(server.messages) == 10_000)
        assert [message for message, _ in server.messages] == [b"%d" % number for number in range(10_000)]
        assert max(after - before for before, after in pairwise(between)) <= FRAMES_PER_TURN
