"""The load: raw sockets, so that the client costs little beside what it measures."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import cast

from benchmarks.ide_parts.app import FRAME_BYTES, LARGE_BYTES, SMALL_BYTES

CONNECTIONS = 16
UP_FRAME_BYTES = 1 << 20
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the app: direct or through a proxy. `headers` end with CR LF."""

    name: str
    port: int
    base: str = ""
    headers: str = ""

    def head(self, path: str, *more: str) -> bytes:
        lines = (f"GET {self.base}{path} HTTP/1.1", *more)
        return ("\r\n".join(lines) + f"\r\n{self.headers}\r\n").encode()

    @property
    def own(self) -> str:
        return f"Host: 127.0.0.1:{self.port}"


class Small(asyncio.Protocol):
    """Asks again as soon as it has been answered, until the time is over."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[int]) -> None:
        self._request, self._until, self._done = request, until, done
        self._count = 0
        self._received = 0
        self._expected = 0
        self._is_chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._received:
            if not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not answered: {data[:400]!r}")
            head, _, _ = data.partition(b"\r\n\r\n")
            self._is_chunked = b"chunked" in head.lower()
            self._expected = len(head) + 4 + SMALL_BYTES
        self._received += len(data)
        if self._received < self._expected or (self._is_chunked and not data.endswith(b"0\r\n\r\n")):
            return
        self._received = 0
        self._count += 1
        if time.perf_counter() < self._until:
            self._transport.write(self._request)
        elif not self._done.done():
            self._done.set_result(self._count)
            self._transport.close()


async def requests_per_second(way: Way, seconds: float) -> float:
    """Small files over CONNECTIONS kept connections."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    counts = []
    for _ in range(CONNECTIONS):
        done: asyncio.Future[int] = loop.create_future()
        request = way.head("/small", way.own)
        await loop.create_connection(partial(Small, request, began + seconds, done), "127.0.0.1", way.port)
        counts.append(done)
    total = sum(await asyncio.gather(*counts))
    return total / (time.perf_counter() - began)


def latencies(way: Way, count: int) -> tuple[float, float]:
    """p50 and p99 in microseconds of small files, one after the other on one connection."""
    request = way.head("/small", way.own)
    times = []
    with _connect(way) as connection:
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(request)
            _read_answer(connection, SMALL_BYTES)
            times.append(time.perf_counter() - began)
    return _percentiles(times[count // 10 :])


def large_file(way: Way) -> float:
    """MB/s of one file of LARGE_BYTES."""
    with _connect(way) as connection:
        began = time.perf_counter()
        connection.sendall(way.head("/large", way.own))
        _read_answer(connection, LARGE_BYTES)
        return LARGE_BYTES / 1e6 / (time.perf_counter() - began)


def round_trips(way: Way, count: int) -> tuple[float, float]:
    """p50 and p99 in microseconds of a short message there and back."""
    message = b"\x82\xa0" + bytes(4) + b"m" * 32
    times = []
    with open_socket(way, "/echo") as connection:
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(message)
            _read(connection, 34)
            times.append(time.perf_counter() - began)
    return _percentiles(times[count // 10 :])


def frames_down(way: Way, count: int) -> float:
    """MB/s of frames of FRAME_BYTES from the app."""
    total = count // FRAME_BYTES * (FRAME_BYTES + 10)
    with open_socket(way, f"/flood?bytes={count}") as connection:
        began = time.perf_counter()
        _read(connection, total)
        return total / 1e6 / (time.perf_counter() - began)


def frames_up(way: Way, count: int) -> float:
    """MB/s of frames of UP_FRAME_BYTES to the app, until it has them all."""
    frame = b"\x82\xff" + UP_FRAME_BYTES.to_bytes(8) + bytes(4) + b"f" * UP_FRAME_BYTES
    number = count // UP_FRAME_BYTES
    with open_socket(way, f"/sink?bytes={number * len(frame)}") as connection:
        began = time.perf_counter()
        for _ in range(number):
            connection.sendall(frame)
        _read(connection, 4)
        return number * len(frame) / 1e6 / (time.perf_counter() - began)


def open_socket(way: Way, path: str) -> socket.socket:
    connection = _connect(way)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        way.head(
            path,
            way.own,
            *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"),
            f"Origin: http://127.0.0.1:{way.port}",
        )
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = connection.recv(1)
        if not data:
            break
        head += data
    if not head.startswith(b"HTTP/1.1 101"):
        raise SystemExit(f"{way.name}: the websocket was not opened: {head!r}")
    return connection


def echo_once(connection: socket.socket) -> None:
    connection.sendall(b"\x82\x84" + bytes(4) + b"ping")
    _read(connection, 6)


def _connect(way: Way) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", way.port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


_SCRATCH = bytearray(BLOCK_BYTES)


def _read(connection: socket.socket, count: int) -> None:
    while count > 0:
        received = connection.recv_into(_SCRATCH)
        if not received:
            raise SystemExit("the connection ended early")
        count -= received


def _read_answer(connection: socket.socket, body_bytes: int) -> None:
    """The answer has to be 200; its framing may be a length or chunks, which a proxy may change."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(64 << 10)
        if not more:
            raise SystemExit(f"no answer: {data[:400]!r}")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not answered: {head!r}")
    if b"chunked" in head.lower():
        tail = body[-5:]
        while not tail.endswith(b"0\r\n\r\n"):
            received = connection.recv_into(_SCRATCH)
            if not received:
                raise SystemExit("the connection ended early")
            tail = (tail + bytes(_SCRATCH[max(0, received - 5) : received]))[-5:]
        return
    _read(connection, body_bytes - len(body))


def _percentiles(times: list[float]) -> tuple[float, float]:
    cut = statistics.quantiles(times, n=100)
    return cut[49] * 1e6, cut[98] * 1e6
