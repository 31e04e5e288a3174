"""What counts as progress of a client that takes an answer."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable

import pytest
from tornado.iostream import StreamClosedError

from handlers.strict_stream import ClientLimits, StrictStream
from tests.refagent_process import until

ANSWER_BYTES = 16 << 20
IDLE_SECONDS = 10.0


class StillLoop:
    """The time and the timers of a loop; time passes by `advance` alone."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self._now

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(self._now + seconds, call, (), asyncio.get_running_loop())
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while due := [each for each in self._timers if not each.cancelled() and each.when() <= end]:
            first = min(due, key=asyncio.TimerHandle.when)
            self._timers.remove(first)
            self._now = first.when()
            first._run()
        self._now = end


def connected() -> tuple[socket.socket, socket.socket]:
    """Ours holds much for a client who takes little at a time, and whose kernel says so after each few KiB."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 10)
        client.connect(listener.getsockname())
        client.setblocking(False)
        ours, _ = listener.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    ours.setblocking(False)
    return ours, client


def untaken_bytes(connection: socket.socket) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(count)


@pytest.mark.gen_test
async def test_a_client_moves_although_the_socket_does_not_say_so_yet() -> None:
    ours, client = connected()
    stream = StrictStream(ours, ClientLimits(60, IDLE_SECONDS), max_buffer_size=1 << 20)
    clock = StillLoop()
    stream._loop = clock  # type: ignore[assignment]
    written = stream.write(bytes(ANSWER_BYTES))
    sent_at_once = stream._total_write_done_index
    for _ in range(3):
        before = untaken_bytes(ours)

        async def has_taken_some(before: int = before) -> bool:
            await asyncio.get_running_loop().sock_recv(client, 4 << 10)
            return untaken_bytes(ours) < before

        await until(has_taken_some)
        clock.advance(0.9 * IDLE_SECONDS)
        assert not stream.closed()
    assert stream._total_write_done_index == sent_at_once  # the buffer was never free enough
    clock.advance(2 * IDLE_SECONDS)
    with pytest.raises(StreamClosedError):
        await written
    client.close()
