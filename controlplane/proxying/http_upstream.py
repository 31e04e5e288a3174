"""Connections to web apps in containers: HTTP/1.1, some kept open, answers handed on as they arrive.

Parsing is llhttp's (through httptools). What is asked for, and what becomes of an answer, is `relay`'s.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from controlplane.agents.faults import fault_of
from controlplane.errors import AgentError, AgentProtocolError, AgentTimeout, Overloaded
from controlplane.models import AgentEndpoint

HEAD_LIMIT_BYTES = 64 << 10
INTERIM_LIMIT = 8
KEPT_PER_APP = 12
KEPT_SECONDS = 4.0
"""code-server closes what is idle for 5 s."""

CONNECTIONS_PER_APP = 256
ANSWER_SECONDS = 300.0
"""For an answer to begin, from when the request was last moved on."""

STREAM_SECONDS = 3600.0
"""Between two pieces of an answer: apps may keep event streams open and still."""

Dial = Callable[[AgentEndpoint], Awaitable[socket.socket]]
"""A connected non-blocking socket. Raises AgentError."""

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class AnswerHead:
    status: int
    reason: str
    fields: list[tuple[str, str]]


class AnswerSink(Protocol):
    def arrived(self, head: AnswerHead | None, data: bytes, *, complete: bool) -> None:
        """What one read brought: the head at most once and first, a piece of the body, and whether that was all."""

    def failed(self, error: AgentError) -> None:
        """The answer did not come, or not to its end."""


class UpstreamConnection(asyncio.Protocol):
    """One connection, one request at a time. Bounded by the transport's own buffers: whoever sends awaits `drained`."""

    def __init__(self, pool: Upstreams, key: Key) -> None:
        self._pool = pool
        self.key = key
        self.is_reused = False
        self.has_answered = False
        self.idle_since = 0.0
        self.moved_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._sink: AnswerSink | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._is_request_sent = False
        self._is_lost = False
        self._begin("GET")

    def _begin(self, method: str) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._is_head_request = method == "HEAD"
        self._head: AnswerHead | None = None
        self._is_head_told = False
        self._fields: list[tuple[str, str]] = []
        self._reason = b""
        self._pieces: list[bytes] = []
        self._head_bytes = 0
        self._interim = 0
        self._is_interim = False
        self._is_complete = False
        self._keeps_alive = False
        self._has_excess = False

    # -- the request ---------------------------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        return not self._is_lost and self._transport is not None and not self._transport.is_closing()

    def begin(self, method: str, sink: AnswerSink) -> None:
        if self._sink is None and self.has_answered:
            self.is_reused = True
        self._begin(method)
        self.has_answered = False
        self._sink = sink
        self._is_request_sent = False
        self.moved_at = self._pool.now()

    def send(self, data: bytes) -> None:
        self.moved_at = self._pool.now()
        if self.is_usable:
            cast(asyncio.Transport, self._transport).write(data)

    def request_sent(self) -> None:
        self._is_request_sent = True
        self._release_if_done()

    def drained(self) -> Awaitable[None] | None:
        """None when more may be sent at once."""
        return self._waiting

    def pause(self) -> None:
        if self.is_usable:
            cast(asyncio.Transport, self._transport).pause_reading()

    def resume(self) -> None:
        self.moved_at = self._pool.now()
        if self.is_usable:
            cast(asyncio.Transport, self._transport).resume_reading()

    def abort(self) -> None:
        """Nobody wants the answer any more."""
        self._sink = None
        self._pool.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def look(self, moment: float) -> None:
        """Fail where nothing has moved for too long, unless it is for the browser to go on with its body."""
        is_taking = self._waiting is None and not self._is_request_sent
        if is_taking and not self._is_head_told:
            return
        limit = STREAM_SECONDS if self._is_head_told else ANSWER_SECONDS
        if self._sink is not None and moment - self.moved_at > limit:
            self._fail(AgentTimeout(f"The app did not answer within {limit:.0f} s."))

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self.resume_writing()
        if self._sink is not None:
            self._end_of_stream()
        self._pool.discard(self)

    def pause_writing(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def eof_received(self) -> bool:
        if self._sink is not None:
            self._end_of_stream()
        return False

    def data_received(self, data: bytes) -> None:
        if self._sink is None:
            self.abort()  # an answer that nobody asked for
            return
        self.moved_at = self._pool.now()
        self.has_answered = True
        if self._head is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(AgentProtocolError("The app switched protocols unasked.", code="http_invalid"))
            return
        except httptools.HttpParserError as error:
            if not (self._is_complete and self._has_excess):
                self._deliver()  # what was good of it, so that it is seen to break off
                self._fail(fault_of(error))
                return
        if self._head is None and self._head_bytes > HEAD_LIMIT_BYTES:
            self._fail(AgentProtocolError("The answer's headers are too large.", code="headers_too_large"))
            return
        self._deliver()

    # -- httptools -----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._has_excess = self._is_complete

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:  # else a trailer: it may be left out (RFC 9110 section 6.5.1)
            self._fields.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        if self._is_complete:
            return
        status = self._parser.get_status_code()
        self._is_interim = 100 <= status < 200
        if self._is_interim:
            self._interim += 1
            if self._interim > INTERIM_LIMIT:
                raise AgentProtocolError("The app sends interim answers without end.", code="http_invalid")
            return
        codings = [value.lower() for name, value in self._fields if name.lower() == "transfer-encoding"]
        if codings and codings != ["chunked"]:
            raise AgentProtocolError("The answer's transfer coding is not chunked.", code="http_invalid")
        self._head = AnswerHead(status, self._reason.decode("latin-1"), self._fields)
        if self._is_head_request:
            self._is_complete = True
            self._keeps_alive = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if self._is_complete or self._is_interim:
            self._has_excess = True
        else:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
            self._fields = []
            self._reason = b""
        elif self._head is not None and not self._is_complete:
            self._is_complete = True
            self._keeps_alive = self._parser.should_keep_alive()

    # -- within --------------------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        sink = self._sink
        if sink is None:
            return
        head = None if self._is_head_told else self._head
        if head is None and not self._pieces and not self._is_complete:
            return
        self._is_head_told = True
        pieces, self._pieces = self._pieces, []
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        complete = self._is_complete
        if complete:
            self._sink = None
            self._release_if_done()
        sink.arrived(head, data, complete=complete)

    def _end_of_stream(self) -> None:
        """The app closed: that ends an answer without a length (RFC 9112 section 6.3), and breaks off any other."""
        head = self._head
        framed = head is None or any(name.lower() in ("content-length", "transfer-encoding") for name, _ in head.fields)
        if framed:
            self._fail(AgentProtocolError("The app closed the connection before its answer was complete."))
        else:
            self._is_complete = True
            self._has_excess = True  # it cannot be used again
            self._deliver()

    def _fail(self, error: AgentError) -> None:
        sink = self._sink
        self.abort()
        if sink is not None:
            sink.failed(error)

    def _release_if_done(self) -> None:
        """Back to the pool when the exchange was whole on both sides, and else closed."""
        if not self._is_complete:
            return
        if not self._is_request_sent:
            return  # an early answer: `relay` ends it
        if self._has_excess or not self.is_usable or not self._keeps_alive:
            self.abort()
        else:
            self._pool.keep(self)


class Upstreams:
    """The connections of all apps. `now` is the monotonic clock."""

    def __init__(self, dial: Dial, now: Callable[[], float], *, connections_per_app: int = CONNECTIONS_PER_APP) -> None:
        self.now = now
        self._limit = connections_per_app
        self._dial = dial
        self._kept: dict[Key, list[UpstreamConnection]] = {}
        self._open: dict[Key, set[UpstreamConnection]] = {}

    def take_kept(self, key: Key) -> UpstreamConnection | None:
        """One that was used lately: the app may have closed it by now all the same."""
        kept = self._kept.get(key)
        moment = self.now()
        while kept:
            connection = kept.pop()
            if connection.is_usable and moment - connection.idle_since <= KEPT_SECONDS:
                return connection
            connection.abort()
        return None

    async def open(self, key: Key) -> UpstreamConnection:
        """A fresh one. Raises AgentError, or Overloaded at CONNECTIONS_PER_APP."""
        open_ones = self._open.setdefault(key, set())
        if len(open_ones) >= self._limit:
            raise Overloaded("Too many requests to this IDE are under way; try again.")
        connection = UpstreamConnection(self, key)
        open_ones.add(connection)
        try:
            await self._connect(connection, await self._dial(AgentEndpoint(key[0], key[1], "")))
        except BaseException:
            self.discard(connection)
            raise
        return connection

    async def adopt(self, key: Key, connected: socket.socket) -> UpstreamConnection:
        """One around a socket that was connected, and maybe spoken on, elsewhere."""
        connection = UpstreamConnection(self, key)
        self._open.setdefault(key, set()).add(connection)
        await self._connect(connection, connected)
        return connection

    async def _connect(self, connection: UpstreamConnection, connected: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, sock=connected)
        except BaseException:
            connected.close()
            raise

    async def dial(self, key: Key) -> socket.socket:
        """A plain socket, for what will be no HTTP. Raises AgentError."""
        return await self._dial(AgentEndpoint(key[0], key[1], ""))

    def keep(self, connection: UpstreamConnection) -> None:
        kept = self._kept.setdefault(connection.key, [])
        if len(kept) >= KEPT_PER_APP:
            connection.abort()
            return
        connection.idle_since = self.now()
        kept.append(connection)

    def discard(self, connection: UpstreamConnection) -> None:
        for table in (self._kept, self._open):
            entries = table.get(connection.key)
            if entries is None:
                continue
            if connection in entries:
                entries.remove(connection)
            if not entries:
                del table[connection.key]

    async def run_once(self) -> None:
        """Close what was kept too long, fail what stands still."""
        moment = self.now()
        for kept in list(self._kept.values()):
            for connection in list(kept):
                if moment - connection.idle_since > KEPT_SECONDS:
                    connection.abort()
        for open_ones in list(self._open.values()):
            for connection in list(open_ones):
                connection.look(moment)

    def close(self) -> None:
        for open_ones in list(self._open.values()):
            for connection in list(open_ones):
                connection.abort()
