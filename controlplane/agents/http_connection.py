"""HTTP/1.1 to agents over asyncio protocols and httptools: keep-alive, bounded in time and memory, nothing else.

No redirects, no proxies, no cookies, no name resolution. What the answers mean is decided by `client` and `states`.

A general client costs several times as much for each request; polling thousands of agents is what this process does all
day, so HTTP is spoken by hand here. Answers are read by `answer_parser`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeAlias, cast

from controlplane.agents.answer_parser import AnswerParser
from controlplane.agents.faults import unreachable
from controlplane.errors import AgentError, AgentProtocolError, AgentTimeout, AgentUnreachable
from controlplane.models import AgentEndpoint
from controlplane.ports import AgentResponse

IDLE_PER_ENDPOINT = 2  # /ready and /status are asked side by side

Origin: TypeAlias = tuple[str, int, bool]
DialCheck: TypeAlias = Callable[[str], None]
"""Raises a ControlPlaneError when an address may not be dialled."""


class Exchange:
    """One request and its answer. `future` is the outcome; the timer is the deadline of the whole."""

    __slots__ = ("body_limit_bytes", "connection", "fresh_only", "future", "request", "timer")

    def __init__(
        self, request: bytes, body_limit_bytes: int, *, fresh_only: bool, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.request = request
        self.body_limit_bytes = body_limit_bytes
        self.fresh_only = fresh_only
        self.future: asyncio.Future[AgentResponse] = loop.create_future()
        self.connection: _Connection | None = None
        self.timer: asyncio.TimerHandle | None = None

    def fail(self, error: AgentError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Connection(asyncio.Protocol):
    """One TCP connection; one exchange at a time. Calls back into the transport when it is free or gone."""

    __slots__ = ("_answer", "_on_free", "_on_lost", "_transport", "exchange", "origin", "reused")

    def __init__(
        self,
        origin: Origin,
        on_free: Callable[[_Connection], None],
        on_lost: Callable[[_Connection, Exchange | None], None],
    ) -> None:
        self.origin = origin
        self.reused = False
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self._answer = AnswerParser(0)

    # -- used by the transport ---------------------------------------------------------------------------------------

    def send(self, exchange: Exchange) -> None:
        assert self._transport is not None
        exchange.connection = self
        self.exchange = exchange
        self._answer.body_limit_bytes = exchange.body_limit_bytes
        self._transport.write(exchange.request)

    def abort(self) -> None:
        self.exchange = None
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def untouched(self) -> bool:
        """Whether nothing of an answer has arrived."""
        return not self._answer.has_begun

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.abort()  # nobody asked
            return
        try:
            self._answer.feed(data)
        except AgentProtocolError as error:
            self.abort()
            exchange.fail(error)
            return
        if self._answer.response is not None:
            self._finish(exchange, self._answer.response)

    def eof_received(self) -> bool:
        if self.exchange is not None:
            self._answer.end()
            if self._answer.response is not None:
                self._finish(self.exchange, self._answer.response)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        exchange, self.exchange = self.exchange, None
        self._on_lost(self, exchange)

    def _finish(self, exchange: Exchange, response: AgentResponse) -> None:
        self.exchange = exchange.connection = None
        keeps_alive = self._answer.keeps_alive
        self._answer.reset()
        if keeps_alive:
            self.reused = True
            self._on_free(self)
        else:
            self.abort()
        if not exchange.future.done():
            exchange.future.set_result(response)


class HttpTransport:
    """Satisfies `ports.AgentTransport`. `check_dial` is asked before each new connection.

    A GET goes out on a connection that is open already and once more on a new one when that turns out to have been
    closed by the agent. A request that acts always gets a new connection: it is sent once or not at all.
    """

    def __init__(self, *, check_dial: DialCheck, tls: ssl.SSLContext | None = None) -> None:
        self._check_dial = check_dial
        self._tls = tls
        self._idle: dict[Origin, list[_Connection]] = {}
        self._busy: set[_Connection] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._closed = False

    def request(
        self,
        endpoint: AgentEndpoint,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        request_id: str | None = None,
        timeout_seconds: float,
        body_limit_bytes: int,
    ) -> asyncio.Future[AgentResponse]:
        """As `ports.AgentTransport.request`; the request is under way when this returns."""
        loop = asyncio.get_running_loop()
        fresh_only = method != "GET"
        exchange = Exchange(
            _request_bytes(endpoint, method, target, body, request_id),
            body_limit_bytes,
            fresh_only=fresh_only,
            loop=loop,
        )
        origin = (endpoint.address, endpoint.port, endpoint.https)
        exchange.timer = loop.call_later(timeout_seconds, self._expire, exchange, timeout_seconds)
        exchange.future.add_done_callback(lambda _: self._settle(exchange))
        connection = None if fresh_only else self._take_idle(origin)
        if connection is not None:
            self._busy.add(connection)
            connection.send(exchange)
        else:
            self._dial(origin, exchange)
        return exchange.future

    def forget(self, endpoint: AgentEndpoint) -> None:
        for connection in self._idle.pop((endpoint.address, endpoint.port, endpoint.https), ()):
            connection.abort()

    async def close(self) -> None:
        """Close every connection; what is under way fails as unreachable."""
        self._closed = True
        dials = list(self._dials)
        for dial in dials:
            dial.cancel()
        for connection in [*self._busy, *(each for idle in self._idle.values() for each in idle)]:
            exchange = connection.exchange
            connection.abort()
            if exchange is not None:
                exchange.fail(AgentUnreachable("The control plane is stopping."))
        self._idle.clear()
        if dials:
            await asyncio.wait(dials)

    @property
    def open_connections(self) -> int:
        return len(self._busy) + sum(map(len, self._idle.values()))

    # -- connections -------------------------------------------------------------------------------------------------

    def _take_idle(self, origin: Origin) -> _Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def _dial(self, origin: Origin, exchange: Exchange) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(origin, exchange))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)
        # A deadline or a caller that went away ends the dialling too.
        exchange.future.add_done_callback(lambda _: task.cancel())

    async def _connect(self, origin: Origin, exchange: Exchange) -> None:
        address, port, https = origin
        try:
            self._check_dial(address)
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(origin, self._release, self._lost),
                address,
                port,
                ssl=self._context() if https else None,
            )
        except asyncio.CancelledError:
            exchange.fail(AgentUnreachable("The connection was given up."))
            raise
        except OSError as error:
            exchange.fail(unreachable(error))
            return
        except AgentError as error:
            exchange.fail(error)
            return
        if exchange.future.done():
            connection.abort()
            return
        self._busy.add(connection)
        connection.send(exchange)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _release(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        idle = self._idle.setdefault(connection.origin, [])
        if self._closed or len(idle) >= IDLE_PER_ENDPOINT:
            connection.abort()
        else:
            idle.append(connection)

    def _lost(self, connection: _Connection, exchange: Exchange | None) -> None:
        self._busy.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[connection.origin]
        if exchange is None or exchange.future.done():
            return
        if connection.reused and connection.untouched and not exchange.fresh_only and not self._closed:
            exchange.fresh_only = True
            self._dial(connection.origin, exchange)
            return
        if connection.untouched:
            exchange.fail(AgentUnreachable("The agent closed the connection without an answer."))
        else:
            exchange.fail(AgentProtocolError("The agent's answer broke off.", code="answer_truncated"))

    def _expire(self, exchange: Exchange, timeout_seconds: float) -> None:
        connection = exchange.connection
        exchange.fail(AgentTimeout(f"The agent did not answer within {timeout_seconds:.3g} s."))
        if connection is not None:
            connection.abort()

    def _settle(self, exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
        if exchange.future.cancelled() and exchange.connection is not None:
            exchange.connection.abort()  # the answer would arrive in the place of the next one


def _request_bytes(
    endpoint: AgentEndpoint, method: str, target: str, body: bytes | None, request_id: str | None
) -> bytes:
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: {endpoint.authority}\r\nAuthorization: Bearer {endpoint.token}\r\n"
        "Accept: application/json\r\n"
    )
    if request_id is not None:
        head += f"X-Request-Id: {request_id}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    elif method != "GET":
        head += "Content-Length: 0\r\n"
    return f"{head}\r\n".encode("latin-1") + (body or b"")
