"""One HTTP request of a browser to a web app and its answer back: streamed both ways at the pace of the slower side.

The browser's side is Tornado's connection (one message of it), the app's an `UpstreamConnection`. Whether the request
may be made was decided before; what is said when the app fails, by `on_failure`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPInputError, ResponseStartLine

from controlplane.errors import AgentError, AgentProtocolError, ControlPlaneError
from controlplane.proxying.headers import Route, response_fields
from controlplane.proxying.http_upstream import AnswerHead, Key, UpstreamConnection, Upstreams

SAFE_TO_REPEAT = frozenset(("GET", "HEAD", "OPTIONS"))
EARLY_ANSWER_SECONDS = 5.0
"""The rest of a body is read and dropped for so long when the app has answered before it (RFC 9112 section 9.5)."""


@dataclass(frozen=True, slots=True)
class Request:
    """`head` is complete; `chunked` says how the body is framed, None that there is none."""

    key: Key
    method: str
    head: bytes
    chunked: bool | None


class Relay:
    """Ends once: by `on_done(status, whole)` when the answer is through, or broken off after it began (the connection
    must then be closed, so that the browser sees it); or by `on_failure` before that."""

    def __init__(
        self,
        pool: Upstreams,
        client: HTTPConnection,
        request: Request,
        route: Route,
        *,
        on_done: Callable[[int, bool], None],
        on_failure: Callable[[ControlPlaneError], None],
    ) -> None:
        self._pool = pool
        self._client = client
        self._request = request
        self._route = route
        self._on_done = on_done
        self._on_failure = on_failure
        self._upstream: UpstreamConnection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._early: asyncio.TimerHandle | None = None
        self._status = 0
        self._is_body_read = request.chunked is None
        self._is_answered = False
        self._is_over = False

    # -- the request -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Of a request without a body."""
        kept = self._pool.take_kept(self._request.key) if self._request.method in SAFE_TO_REPEAT else None
        if kept is not None:
            self._send_head(kept)
            kept.request_sent()
        else:
            self._dialling = asyncio.get_running_loop().create_task(self._dial_and_send())

    async def _dial_and_send(self) -> None:
        if await self._dial():
            self._end_request()

    def _end_request(self) -> None:
        assert self._upstream is not None
        if self._request.chunked:
            self._upstream.send(b"0\r\n\r\n")
        self._upstream.request_sent()

    def take(self, upstream: UpstreamConnection, received: bytes) -> None:
        """Of a request that was sent elsewhere: what was received is the beginning of its answer."""
        self._upstream = upstream
        upstream.begin(self._request.method, self)
        upstream.request_sent()
        upstream.data_received(received)

    async def _dial(self) -> bool:
        try:
            upstream = await self._pool.open(self._request.key)
        except ControlPlaneError as error:
            self._fail(error)
            return False
        if self._is_over:
            upstream.abort()
            return False
        self._send_head(upstream)
        return True

    def _send_head(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        upstream.begin(self._request.method, self)
        upstream.send(self._request.head)

    async def body(self, data: bytes) -> None:
        """A piece of the body; done when more may come. The app is first spoken to when there is some."""
        if self._is_over or self._is_answered or (self._upstream is None and not await self._dial()):
            return
        upstream = self._upstream
        assert upstream is not None
        upstream.send(b"%x\r\n%b\r\n" % (len(data), data) if self._request.chunked else data)
        waiting = upstream.drained()
        if waiting is not None:
            await waiting

    def body_end(self) -> None:
        self._is_body_read = True
        if self._is_answered:
            self._finish()
        elif self._upstream is not None:
            self._end_request()
        elif not self._is_over:
            self._dialling = asyncio.get_running_loop().create_task(self._dial_and_send())

    def cancel(self) -> None:
        """The browser is gone, or may not have the answer any more."""
        if self._is_over:
            return
        self._is_over = True
        self._let_go()
        self._on_done(self._status or 499, False)  # nginx's: the client closed the request

    # -- the answer ----------------------------------------------------------------------------------------------------

    def arrived(self, head: AnswerHead | None, data: bytes, *, complete: bool) -> None:
        if self._is_over:
            return
        try:
            written = self._client.write(data) if head is None and data else None
            if head is not None:
                written = self._client.write_headers(*self._begin_answer(head), data or None)
        except (HTTPInputError, ValueError):
            self._status = 0
            self._fail(AgentProtocolError("The answer's headers cannot be passed on.", code="http_invalid"))
            return
        if complete:
            self._is_answered = True
            self._finish()
        elif written is not None and not written.done() and self._upstream is not None:
            upstream = self._upstream
            upstream.pause()
            written.add_done_callback(lambda _: upstream.resume())

    def _begin_answer(self, head: AnswerHead) -> tuple[ResponseStartLine, HTTPHeaders]:
        headers = HTTPHeaders()
        for name, value in response_fields(head.fields, self._route):
            if head.status != 204 or name.lower() != "content-length":
                headers.add(name, value)
        self._status = head.status
        return ResponseStartLine("HTTP/1.1", head.status, head.reason), headers

    def _finish(self) -> None:
        """Once the body is read, or has had its time: to close while it arrives would cost the client the answer."""
        if self._is_over:
            return
        if not self._is_body_read:
            if self._early is None:
                if self._upstream is not None:
                    self._upstream.abort()
                self._early = asyncio.get_running_loop().call_later(EARLY_ANSWER_SECONDS, self._finish_now)
            return
        self._finish_now()

    def _finish_now(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._early is not None:
            self._early.cancel()
        self._client.finish()
        self._on_done(self._status, True)

    def failed(self, error: AgentError) -> None:
        upstream, self._upstream = self._upstream, None
        if self._is_over:
            return
        if self._status:
            self._is_over = True
            self._on_done(self._status, False)
            return
        may_repeat = self._request.method in SAFE_TO_REPEAT and self._request.chunked is None
        if upstream is not None and upstream.is_reused and not upstream.has_answered and may_repeat:
            self._dialling = asyncio.get_running_loop().create_task(self._dial_and_send())
            return
        self._fail(error)

    def _fail(self, error: ControlPlaneError) -> None:
        if not self._is_over:
            self._is_over = True
            self._let_go()
            self._on_failure(error)

    def _let_go(self) -> None:
        if self._early is not None:
            self._early.cancel()
        if self._dialling is not None and self._dialling is not asyncio.current_task():
            self._dialling.cancel()
        if self._upstream is not None:
            self._upstream.abort()
