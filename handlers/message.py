"""One request below Tornado's handlers: counted, logged, and answered with a few bytes of our own where it is refused.

The application's handlers read whole bodies and know only the API's methods; what is proxied, or refused for its host,
is served by delegates of this kind. A body that is not wanted is read and dropped for a while before the connection is
closed, so that the client reads the answer instead of a reset.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from http.client import responses
from typing import Any, ClassVar, cast

import orjson
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine

from controlplane.errors import ControlPlaneError, MalformedRequest, Misdirected
from controlplane.observability.logs import request_id_of_context
from controlplane.proxying.request_guard import has_body
from controlplane.services import Services
from handlers.base import request_id_of
from handlers.client_address import client_address
from handlers.error_map import envelope, retry_after_seconds, status_of
from handlers.parting import part
from handlers.request_log import RequestLog
from handlers.strict_stream import StrictStream
from handlers.takeover import release_socket

UNREAD_BODY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """An answer that is not the app's."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Message(HTTPMessageDelegate):
    """Subclasses define `decide`, and call `answer` or take the request further themselves and call `end`."""

    route: ClassVar[str]

    def __init__(self, services: Services, log: RequestLog, connection: HTTP1Connection) -> None:
        self.services = services
        self.connection = connection
        self.peer: str = cast(Any, connection.context).remote_ip
        self.is_read = False
        self._log = log
        self._began = 0.0
        self._answer: OwnAnswer | None = None
        self._is_said = False
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    def decide(self) -> Awaitable[None] | None:
        """What becomes of the request, once its head is there. May raise ControlPlaneError."""
        raise NotImplementedError

    def client_gone(self) -> None:
        """Nobody waits for the answer any more."""
        self.end(499)  # nginx's: the client closed the request

    # -- HTTPMessageDelegate -------------------------------------------------------------------------------------------

    def headers_received(self, start_line: object, headers: HTTPHeaders) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        self.method, self.target = start_line.method, start_line.path
        self.version = start_line.version
        self.headers = headers
        self.has_body = has_body(headers)
        self.request_id = request_id_of(headers)
        self._began = time.monotonic()
        request_id_of_context.set(self.request_id)
        self.services.lifecycle.request_began()
        self.connection.set_close_callback(self.client_gone)
        cast(StrictStream, self.connection.stream).last_words = self.break_off
        try:
            deciding = self.decide()
        except ControlPlaneError as error:
            self.refuse(error)
            return None
        return None if deciding is None else self._decide_later(deciding)

    async def _decide_later(self, deciding: Awaitable[None]) -> None:
        try:
            await deciding
        except ControlPlaneError as error:
            self.refuse(error)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None

    def finish(self) -> None:
        self.is_read = True
        if self._answer is None:
            self.proceed()
        elif self._is_said:
            self._finish_now()
        else:
            self._say(self._answer)

    def proceed(self) -> None:
        """The request was read to its end, and has no answer yet."""

    def on_connection_close(self) -> None:
        self.client_gone()

    # -- answers of our own --------------------------------------------------------------------------------------------

    @property
    def client(self) -> str:
        trusted = self.services.settings.trusted_proxies
        return client_address(self.peer, self.headers.get("X-Forwarded-For"), trusted)

    def refuse(self, error: ControlPlaneError) -> None:
        """Once the head is there, before any body. Whoever cannot be understood, or still sends, is not listened to:
        what follows on the connection may be a body or another request, and others could read it otherwise."""
        answer = self.render_error(error)
        if self.has_body or isinstance(error, MalformedRequest | Misdirected):
            self._answer = answer
            client, _ = release_socket(self.connection.detach())
            part(client, self._render(answer))
            self.end(answer.status)
        else:
            self.answer(answer)

    def break_off(self, error: ControlPlaneError) -> bytes:
        """The body cannot be read to its end, or does not come, and nothing was answered yet."""
        self._answer = answer = self.render_error(error)
        self.end(answer.status)
        return self._render(answer)

    def render_error(self, error: ControlPlaneError) -> OwnAnswer:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        retry_after = retry_after_seconds(error)
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        return OwnAnswer(status_of(error), orjson.dumps(envelope(error, self.request_id)), headers)

    def answer(self, answer: OwnAnswer) -> None:
        """Said at once where a body is on its way, else when the request has been read: so the connection stays."""
        if self._answer is not None or self._is_over:
            return
        self._answer = answer
        if self.is_read or self.has_body:
            self._say(answer)

    def _headers(self, answer: OwnAnswer) -> dict[str, str]:
        return {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "X-Request-Id": self.request_id,
            **answer.headers,
            "Content-Length": str(len(answer.body)),
        }

    def _render(self, answer: OwnAnswer) -> bytes:
        """As the last one on its connection."""
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Unknown')}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self._headers(answer).items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if self.method == "HEAD" else answer.body)

    def _say(self, answer: OwnAnswer) -> None:
        self._is_said = True
        body = None if self.method == "HEAD" else answer.body
        reason = responses.get(answer.status, "Unknown")
        start_line = ResponseStartLine("HTTP/1.1", answer.status, reason)
        self.connection.write_headers(start_line, HTTPHeaders(self._headers(answer)), body)
        if self.is_read or self.headers.get("Expect", "").lower() == "100-continue":
            self._finish_now()
        else:
            self._timer = asyncio.get_running_loop().call_later(UNREAD_BODY_SECONDS, self._finish_now)

    def _finish_now(self) -> None:
        if self._is_over or self._answer is None:
            return
        if not self.connection.stream.closed():
            self.connection.finish()
        self.end(self._answer.status)

    def end(self, status: int) -> None:
        """Counted and logged, once."""
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self.services.lifecycle.request_ended()
        self._log.record(
            self.route,
            self.method,
            self.target.partition("?")[0],
            status,
            seconds=time.monotonic() - self._began,
            address=self.client,
            request_id=self.request_id,
        )
