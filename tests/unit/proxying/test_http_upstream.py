"""Connections to apps: kept for a moment, bounded in number, and given up when nothing comes."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from controlplane.errors import AgentError, AgentTimeout, Overloaded
from controlplane.models import AgentEndpoint
from controlplane.proxying.http_upstream import ANSWER_SECONDS, KEPT_PER_APP, KEPT_SECONDS, AnswerHead, Key, Upstreams
from tests.fakes import FakeClock
from tests.refagent_process import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Sink:
    def __init__(self) -> None:
        self.head: AnswerHead | None = None
        self.body = b""
        self.outcome: asyncio.Future[AgentError | None] = asyncio.get_running_loop().create_future()

    def arrived(self, head: AnswerHead | None, data: bytes, *, complete: bool) -> None:
        self.head = head or self.head
        self.body += data
        if complete:
            self.outcome.set_result(None)

    def failed(self, error: AgentError) -> None:
        self.outcome.set_result(error)


class Server:
    """Answers OK to whatever arrives; `is_silent` says nothing."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pool = Upstreams(self._dial, self.clock.monotonic, connections_per_app=20)
        self.connections = 0
        self._dialled = 0
        self._left = 0
        self.is_silent = False
        self.stops_reading = asyncio.Event()
        self.ended = asyncio.Event()

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.key: Key = ("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Every connection was accepted and is closed, also one that was aborted before it was accepted."""
        self.pool.close()
        self.ended.set()
        await until(self._is_left_alone)
        self._server.close()

    async def _is_left_alone(self) -> bool:
        return self._left == self._dialled

    async def _dial(self, endpoint: AgentEndpoint) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (endpoint.address, endpoint.port))
        self._dialled += 1
        return connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError):
            while not self.stops_reading.is_set() and await reader.read(1 << 16):
                if not self.is_silent:
                    writer.write(OK)
        if self.stops_reading.is_set():
            await self.ended.wait()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self._left += 1

    async def ask(self) -> None:
        connection = self.pool.take_kept(self.key) or await self.pool.open(self.key)
        sink = Sink()
        connection.begin("GET", sink)
        connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.request_sent()
        assert await sink.outcome is None
        assert sink.body == b"ok"


@pytest.mark.gen_test
async def test_a_connection_is_used_again_while_it_is_young() -> None:
    async with Server() as server:
        await server.ask()
        server.clock.advance(KEPT_SECONDS)
        await server.ask()
        assert server.connections == 1
        server.clock.advance(KEPT_SECONDS + 0.1)
        await server.ask()
        assert server.connections == 2
        server.clock.advance(KEPT_SECONDS + 0.1)
        await server.pool.run_once()
        assert server.pool.take_kept(server.key) is None


@pytest.mark.gen_test
async def test_few_connections_are_kept_after_many_requests_at_once() -> None:
    async with Server() as server:
        opened = [await server.pool.open(server.key) for _ in range(KEPT_PER_APP + 5)]
        for connection in opened:
            server.pool.keep(connection)
        kept = 0
        while server.pool.take_kept(server.key) is not None:
            kept += 1
        assert kept == KEPT_PER_APP


@pytest.mark.gen_test
async def test_connections_to_one_app_are_bounded() -> None:
    async with Server() as server:
        opened = [await server.pool.open(server.key) for _ in range(20)]
        with pytest.raises(Overloaded):
            await server.pool.open(server.key)
        opened[0].abort()
        await server.pool.open(server.key)


@pytest.mark.gen_test
async def test_an_answer_that_does_not_begin_is_given_up() -> None:
    async with Server() as server:
        server.is_silent = True
        connection = await server.pool.open(server.key)
        sink = Sink()
        connection.begin("GET", sink)
        connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.request_sent()
        server.clock.advance(ANSWER_SECONDS)
        await server.pool.run_once()
        assert not sink.outcome.done()
        server.clock.advance(1)
        await server.pool.run_once()
        assert isinstance(await sink.outcome, AgentTimeout)


@pytest.mark.gen_test
async def test_a_body_that_does_not_come_is_not_held_against_the_app_and_one_that_it_does_not_take_is() -> None:
    async with Server() as server:
        server.is_silent = True
        connection = await server.pool.open(server.key)
        sink = Sink()
        connection.begin("POST", sink)
        connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        server.clock.advance(ANSWER_SECONDS + 1)
        await server.pool.run_once()
        assert not sink.outcome.done()
        server.stops_reading.set()
        while connection.drained() is None:
            connection.send(bytes(1 << 20))
            await asyncio.sleep(0)
        server.clock.advance(ANSWER_SECONDS + 1)
        await server.pool.run_once()
        assert isinstance(await sink.outcome, AgentTimeout)
