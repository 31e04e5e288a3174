"""A web app that costs as little as Python allows, so that the proxies in front of it are what is measured."""

from __future__ import annotations

import asyncio
import multiprocessing.connection
import re
from typing import cast

import uvloop

from controlplane.proxying.frames import accept_value

SMALL_BYTES = 4 << 10
LARGE_BYTES = 20_000_000
FRAME_BYTES = 256 << 10  # code-server's largest
_KEY = re.compile(rb"sec-websocket-key: *([^\r]+)", re.IGNORECASE)


def _answer(body: bytes) -> bytes:
    return (
        b'HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\nETag: "x"\r\nCache-Control: public, max-age=31536000\r\n'
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


AGENT = _answer(b'{"ready": true, "state": "running"}')  # it is its container's agent too
SMALL = _answer(b"s" * SMALL_BYTES)
LARGE = _answer(b"l" * LARGE_BYTES)
FRAME = b"\x82\x7f" + FRAME_BYTES.to_bytes(8) + b"f" * FRAME_BYTES


class App(asyncio.Protocol):
    """`/small`, `/large`, `/echo` (messages of up to 125 bytes), `/flood?bytes=N`, `/sink?bytes=N` (answers then)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=1 << 20)
        self._rest = b""
        self._take = self._take_requests
        self._wanted = 0
        self._left = 0

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def _take_requests(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head, self._rest = self._rest[: end + 4], self._rest[end + 4 :]
            target = head.split(b" ", 2)[1]
            path, _, query = target.partition(b"?")
            if path.endswith(b"/small"):
                self._transport.write(SMALL)
            elif path.endswith(b"/large"):
                self._transport.write(LARGE)
            elif path in (b"/health", b"/ready", b"/status"):
                self._transport.write(AGENT)
            else:
                self._open(head, path, int(re.sub(rb"\D", b"", query) or 0))

    def _open(self, head: bytes, path: bytes, count: int) -> None:
        found = _KEY.search(head)
        assert found is not None, head
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_value(found[1].decode()).encode()
        )
        if path.endswith(b"/flood"):
            self._left = count // FRAME_BYTES
            self._take = self._ignore
            self.resume_writing()
        elif path.endswith(b"/sink"):
            self._wanted = count
            self._take = self._take_sink
        else:
            self._take = self._take_echo
        rest, self._rest = self._rest, b""
        if rest:
            self._take(rest)

    def _ignore(self, data: bytes) -> None:
        return

    def _take_sink(self, data: bytes) -> None:
        self._wanted -= len(data)
        if self._wanted <= 0:
            self._transport.write(b"\x82\x02ok")

    def _take_echo(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= 6:
            length = self._rest[1] & 127
            if len(self._rest) < 6 + length:
                return
            payload, mask = self._rest[6 : 6 + length], self._rest[2:6]
            if mask != b"\0\0\0\0":
                payload = bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
            self._transport.write(bytes((self._rest[0], length)) + payload)
            self._rest = self._rest[6 + length :]

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        while self._left and not self._paused:
            self._left -= 1
            self._transport.write(FRAME)


def run(pipe: multiprocessing.connection.Connection) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(pipe))


async def _run(pipe: multiprocessing.connection.Connection) -> None:
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", 0, backlog=1024)
    pipe.send(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(pipe.recv)
    server.close()
