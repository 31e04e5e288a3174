"""Uploads: a request's raw body to the agent as it arrives, in constant memory, at the pace of the slower side.

Works on two plain sockets: what is read goes out of the same scratch buffer, and nothing more is read while the agent
takes no more. Who may upload what is decided before; how the outcome is told to the client, by the handler.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from controlplane.agents.answer_parser import AnswerParser
from controlplane.errors import (
    AgentError,
    AgentProtocolError,
    AgentTimeout,
    ControlPlaneError,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    Suspended,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from controlplane.instances import InstanceDirectory
from controlplane.models import AgentEndpoint, Instance
from controlplane.ports import AgentResponse
from controlplane.proxying.chunked import ChunkedReader

SCRATCH_BYTES = 1 << 20
READ_BYTES = 256 << 10
"""What an upload reads at first. More, up to the scratch buffer, while the agent takes each read at once: fewer turns
for a gigabyte. Less, down to LEAST_READ_BYTES, while it does not: what it leaves is copied and kept for each upload."""

LEAST_READ_BYTES = 64 << 10
ANSWER_LIMIT_BYTES = 1 << 20
UPLOAD_LIMIT = 256
BROKEN_SECONDS = 2.0
"""An agent that takes no more may have said why: so long its answer is waited for."""

LINGER_SECONDS = 5.0
LINGER_BYTES = 64 << 20
"""What a client still sends is read and dropped, so that a reset does not cost it the answer (RFC 9112 section 9.6)."""

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Dial = Callable[[AgentEndpoint], Awaitable[socket.socket]]
"""A connected non-blocking socket. Raises AgentError."""


class ClientGone(Exception):
    """The client closed the connection: nobody is left to tell anything."""


@dataclass(frozen=True, slots=True)
class Order:
    """One upload. `target` is the agent's path with its query; `length` is None for a chunked body."""

    user_id: str
    instance: Instance
    endpoint: AgentEndpoint
    target: str
    length: int | None
    request_id: str
    expects_continue: bool


class Uploads:
    """Carries uploads out, within limits. Times in seconds, sizes in bytes."""

    def __init__(
        self,
        dial: Dial,
        directory: InstanceDirectory,
        *,
        limit_bytes: int,
        per_user: int,
        idle_seconds: float,
        answer_seconds: float,
    ) -> None:
        self._dial = dial
        self._limit_bytes = limit_bytes
        self._per_user = per_user
        self._idle_seconds = idle_seconds
        self._answer_seconds = answer_seconds
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._under_way: Tally[str] = Tally()
        self._stops: dict[asyncio.Future[AgentResponse], Instance] = {}
        directory.add_listener(self._on_instance_change)

    def check_length(self, length: int | None) -> None:
        """Raises PayloadTooLarge, early, when the length is known."""
        if length is not None and length > self._limit_bytes:
            raise too_large(self._limit_bytes)

    @contextmanager
    def place(self, user_id: str) -> Iterator[None]:
        """Raises TooManyRequests or Overloaded."""
        if self._under_way[user_id] >= self._per_user:
            raise TooManyRequests(
                f"{self._per_user} uploads of this account are under way; wait for one to end.", retry_after_seconds=5
            )
        if self._under_way.total() >= UPLOAD_LIMIT:
            raise Overloaded("Too many uploads are under way; try again.")
        self._under_way[user_id] += 1
        try:
            yield
        finally:
            self._under_way[user_id] -= 1
            if not self._under_way[user_id]:
                del self._under_way[user_id]

    async def carry(
        self, client: socket.socket, ahead: bytes, order: Order, stopped: asyncio.Future[ControlPlaneError]
    ) -> AgentResponse:
        """The agent's answer, whatever its status. `stopped` ends the upload from outside.

        Raises ClientGone, AgentError, PayloadTooLarge, MalformedRequest, RequestTimeout, or what `stopped` says.
        """
        loop = asyncio.get_running_loop()
        agent = await self._dial(order.endpoint)
        outcome: asyncio.Future[AgentResponse] = loop.create_future()
        pump = _Pump(loop, client, agent, order, self._scratch, outcome, self._limit_bytes)
        stopped.add_done_callback(lambda told: pump.fail(told.result()) if not told.cancelled() else None)
        self._stops[outcome] = order.instance
        try:
            if order.expects_continue:
                await self._ask_to_go_on(client)
            pump.start(ahead)
            watch = loop.create_task(pump.watch(self._idle_seconds, self._answer_seconds))
            outcome.add_done_callback(lambda _: watch.cancel())
            return await outcome
        finally:
            del self._stops[outcome]
            pump.close()

    async def _ask_to_go_on(self, client: socket.socket) -> None:
        try:
            async with asyncio.timeout(self._idle_seconds):
                await asyncio.get_running_loop().sock_sendall(client, b"HTTP/1.1 100 Continue\r\n\r\n")
        except (ConnectionError, TimeoutError) as error:
            raise ClientGone from error

    def stop(self) -> None:
        """End every upload: the process stops."""
        for outcome in list(self._stops):
            _fail(outcome, Unavailable("The control plane is stopping; send the file again."))

    def _on_instance_change(self, _before: Instance | None, after: Instance | None) -> None:
        for outcome, instance in list(self._stops.items()):
            if after is None:
                gone = _before is not None and _before.id == instance.id
                if gone:
                    _fail(outcome, NotFound())
            elif after.id == instance.id:
                if after.suspension is not None:
                    _fail(outcome, Suspended("This instance is suspended."))
                elif after.owner_id != instance.owner_id:
                    _fail(outcome, NotFound())


def too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"An upload may have {limit_bytes} bytes.", details={"limitBytes": limit_bytes})


def session_ended() -> Unauthenticated:
    return Unauthenticated("The session has ended.", code="session_revoked")


async def linger(client: socket.socket) -> None:
    """Read and drop what the client still sends, bounded in time and size, until it closes."""
    loop = asyncio.get_running_loop()
    scratch = bytearray(64 << 10)
    dropped = 0
    try:
        client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_SECONDS):
            while dropped < LINGER_BYTES and (received := await loop.sock_recv_into(client, scratch)):
                dropped += received
    except (OSError, TimeoutError):
        return


def _fail(outcome: asyncio.Future[AgentResponse], error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)


class _Pump:
    """The two sockets of one upload, driven by readiness."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        agent: socket.socket,
        order: Order,
        scratch: memoryview,
        outcome: asyncio.Future[AgentResponse],
        limit_bytes: int,
    ) -> None:
        self._loop = loop
        self._client = client
        self._agent = agent
        self._scratch = scratch
        self._outcome = outcome
        self._limit_bytes = limit_bytes
        self._head = _request_head(order)
        self._left = order.length
        self._chunks = None if order.length is not None else ChunkedReader()
        self._sent_bytes = 0
        self._pending = memoryview(b"")
        self._read_bytes = READ_BYTES
        self._is_body_read = False
        self._agent_broke = False
        self._moved_at = 0.0
        self._answer = AnswerParser(ANSWER_LIMIT_BYTES)

    def start(self, ahead: bytes) -> None:
        self._moved_at = self._loop.time()
        self._loop.add_reader(self._agent.fileno(), self._on_agent_readable)
        self._send(memoryview(self._head))
        if self._left == 0:
            self._is_body_read = True
        elif ahead:
            self._take(memoryview(ahead))
        self._listen_to_client()

    def fail(self, error: Exception) -> None:
        _fail(self._outcome, error)

    def close(self) -> None:
        for connection in (self._client, self._agent):
            self._loop.remove_reader(connection.fileno())
            self._loop.remove_writer(connection.fileno())
        self._agent.close()

    async def watch(self, idle_seconds: float, answer_seconds: float) -> None:
        """Fail when nothing moves for too long, whoever is to blame."""
        while not self._outcome.done():
            limit = BROKEN_SECONDS if self._agent_broke else answer_seconds if self._is_sent else idle_seconds
            left = self._moved_at + limit - self._loop.time()
            if left > 0:
                await asyncio.sleep(left)
            elif self._agent_broke:
                self.fail(_broken_off())
            elif self._is_sent:
                self.fail(AgentTimeout(f"The agent did not answer the upload within {limit:.3g} s."))
            elif self._pending:
                self.fail(AgentTimeout(f"The agent took nothing of the upload for {limit:.3g} s."))
            else:
                self.fail(RequestTimeout(f"Nothing of the upload arrived for {limit:.3g} s."))

    @property
    def _is_sent(self) -> bool:
        return self._is_body_read and not self._pending

    # -- from the client -----------------------------------------------------------------------------------------------

    def _listen_to_client(self) -> None:
        if not self._is_body_read and not self._pending and not self._agent_broke:
            self._loop.add_reader(self._client.fileno(), self._on_client_readable)
        else:
            self._loop.remove_reader(self._client.fileno())

    def _on_client_readable(self) -> None:
        try:
            received = self._client.recv_into(self._scratch, self._read_bytes)
        except _WOULD_BLOCK:
            return
        except OSError as error:
            gone = ClientGone()
            gone.__cause__ = error
            self.fail(gone)
            return
        if not received:
            self.fail(ClientGone())
            return
        self._take(self._scratch[:received])
        if self._pending:
            self._read_bytes = max(LEAST_READ_BYTES, self._read_bytes // 2)
        elif received == self._read_bytes:
            self._read_bytes = min(SCRATCH_BYTES, self._read_bytes * 2)
        if self._is_body_read or self._pending:
            self._listen_to_client()

    def _take(self, data: memoryview) -> None:
        """A part of the body, still in the scratch buffer: whatever is not sent now is copied."""
        self._moved_at = self._loop.time()
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self._is_body_read = self._left == 0
            self._send(data)
            return
        try:
            self._take_chunks(data)
        except ControlPlaneError as error:
            self.fail(error)

    def _take_chunks(self, data: memoryview) -> None:
        chunks = self._chunks
        assert chunks is not None
        payload = chunks.feed(data)
        self._sent_bytes += len(payload)
        if self._sent_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        self._is_body_read = chunks.is_complete
        framed = b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
        if chunks.is_complete:
            framed += b"0\r\n\r\n"
        if framed:
            self._send(memoryview(framed))

    # -- to the agent --------------------------------------------------------------------------------------------------

    def _send(self, data: memoryview) -> None:
        if self._pending:
            self._pending = memoryview(bytes(self._pending) + data)  # the head, and what came with it
            return
        sent = self._send_now(data)
        if sent < len(data):
            self._pending = memoryview(bytes(data[sent:]))
            self._loop.add_writer(self._agent.fileno(), self._on_agent_writable)

    def _send_now(self, data: memoryview) -> int:
        try:
            return self._agent.send(data)
        except _WOULD_BLOCK:
            return 0
        except OSError:
            self._stop_sending()
            return len(data)

    def _on_agent_writable(self) -> None:
        sent = self._send_now(self._pending)
        if sent:
            self._moved_at = self._loop.time()
        self._pending = self._pending[sent:]
        if not self._pending:
            self._loop.remove_writer(self._agent.fileno())
            self._listen_to_client()

    def _stop_sending(self) -> None:
        """The agent takes no more; its answer may be on the way, or the connection's end."""
        self._agent_broke = True
        self._moved_at = self._loop.time()
        self._loop.remove_reader(self._client.fileno())

    # -- from the agent ------------------------------------------------------------------------------------------------

    def _on_agent_readable(self) -> None:
        try:
            data = self._agent.recv(64 << 10)
        except _WOULD_BLOCK:
            return
        except OSError:
            self.fail(_broken_off())
            return
        try:
            if data:
                self._answer.feed(data)
            else:
                self._answer.end()
        except AgentError as error:
            self.fail(error)
            return
        if self._answer.response is not None:
            self._finish(self._answer.response)
        elif not data:
            self._loop.remove_reader(self._agent.fileno())
            self.fail(_broken_off())

    def _finish(self, response: AgentResponse) -> None:
        if 200 <= response.status < 300 and not self._is_sent:
            self.fail(AgentProtocolError("The agent accepted the upload before it had it.", code="upload_invalid"))
        elif not self._outcome.done():
            self._outcome.set_result(response)


def _broken_off() -> AgentProtocolError:
    return AgentProtocolError("The agent broke off the upload.", code="upload_broken_off")


def _request_head(order: Order) -> bytes:
    endpoint = order.endpoint
    framing = "Transfer-Encoding: chunked" if order.length is None else f"Content-Length: {order.length}"
    return (
        f"POST {order.target} HTTP/1.1\r\nHost: {endpoint.authority}\r\nAuthorization: Bearer {endpoint.token}\r\n"
        f"X-Request-Id: {order.request_id}\r\nContent-Type: application/octet-stream\r\n{framing}\r\n"
        "Connection: close\r\n\r\n"
    ).encode("latin-1")
