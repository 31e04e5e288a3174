"""What every API handler shares: request id, CORS, principal, body, envelope. Domain decisions are the services'.

A handler's verb (`on_get`, `on_post` …) is called with the body already read, bounded and validated by its row in the
route table, and *returns* an `Answer`; the base renders it. Errors are raised, and become the envelope of `error_map`.
"""

from __future__ import annotations

import functools
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http.client import responses
from typing import Any, cast

import orjson
import tornado.web
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from controlplane.errors import (
    ControlPlaneError,
    Forbidden,
    MalformedRequest,
    PayloadTooLarge,
    StorageUnavailable,
    Unauthenticated,
)
from controlplane.idempotency import RawAnswer
from controlplane.models import Principal
from controlplane.observability.logs import request_id_of_context
from controlplane.services import Services
from handlers.client_address import client_address
from handlers.error_map import CODE_OF_STATUS, envelope, retry_after_seconds, status_of
from handlers.routing import Access, Endpoint, Route
from handlers.strict_stream import StrictStream
from handlers.validation import parse_json_object

logger = logging.getLogger("controlplane.http")

DISCARD_LIMIT_BYTES = 16 << 20
"""So much of an oversized body is read and thrown away, so that the client reads the 413 instead of a reset."""

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_VERBS = ("get", "post", "put", "patch", "delete")
_CORS_HEADERS = "Authorization, Content-Type, If-None-Match, Idempotency-Key, X-Request-Id"
_CORS_EXPOSED = "ETag, Retry-After, X-Request-Id, Idempotency-Replayed"


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is JSON-compatible, or bytes that are JSON already, or None for no body (204)."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else orjson.dumps(self.body)


Verb = Callable[..., Answer | Awaitable[Answer]]


def _answering(verb: Verb) -> Callable[..., Awaitable[None] | None]:
    """Turn a verb that returns an Answer into the method that Tornado calls."""

    @functools.wraps(verb)
    def run(handler: ApiHandler, **path: str) -> Awaitable[None] | None:
        handler.read_body()
        key = handler.request.headers.get("Idempotency-Key")
        if key is not None and handler.endpoint.idempotent:
            return handler.answer_once(key, lambda: verb(handler, **path))
        answer = verb(handler, **path)
        if not isinstance(answer, Answer):
            return handler.answer_later(answer)
        handler.render_answer(answer)
        return None

    return run


class ApiHandler(tornado.web.RequestHandler):
    """Subclasses define `on_get`, `on_post` and so on, which return an Answer, at once or awaited.

    The application serves a request with a body by a class of the same that streams it (`handlers.app`): `prepare`
    decides before any of the body is read.
    """

    services: Services
    route: Route
    endpoint: Endpoint
    principal: Principal
    body: dict[str, Any]
    query: dict[str, Any]
    request_id: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for verb in _VERBS:
            method = cls.__dict__.get(f"on_{verb}")
            if method is not None:
                setattr(cls, verb, _answering(method))

    def initialize(self, services: Services, route: Route) -> None:
        self.services = services
        self.route = route
        self._chunks: list[bytes] = []
        self._received_bytes = 0
        self._is_counted = False
        self.request_id = request_id_of(self.request.headers)
        self.set_header("X-Request-Id", self.request_id)
        stream = cast(HTTP1Connection, self.request.connection).stream
        assert isinstance(stream, StrictStream)
        stream.last_words = self._break_off
        stream.body_seconds = services.settings.request_body_seconds

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")

    # -- before the verb ---------------------------------------------------------------------------------------------

    def prepare(self) -> Awaitable[None] | None:
        request_id_of_context.set(self.request_id)
        lifecycle = self.services.lifecycle
        lifecycle.request_began()
        self._is_counted = True
        if lifecycle.draining:
            self.set_header("Connection", "close")
        origin = self.request.headers.get("Origin")
        if origin is not None:
            self._allow_origin(origin)
        method = self.request.method or ""
        if method == "OPTIONS":
            return None
        endpoint = self.route.endpoints.get(method)
        if endpoint is None:
            self.set_header("Allow", ", ".join(sorted({*self.route.endpoints, "OPTIONS"})))
            raise tornado.web.HTTPError(405)
        self.endpoint = endpoint
        if method != "GET":
            self._bound_body()
        if endpoint.access is Access.PUBLIC:
            return None
        if not lifecycle.serving:
            raise StorageUnavailable(f"Not serving yet: {lifecycle.problem}.")
        token = bearer_token(self.request)
        principal = self.services.authenticator.authenticate_cached(token)
        if principal is None:
            return self._authenticate(token)
        self._authorize(principal)
        return None

    async def _authenticate(self, token: str) -> None:
        self._authorize(await self.services.authenticator.authenticate(token))

    def _authorize(self, principal: Principal) -> None:
        self.principal = principal
        if self.endpoint.access is Access.ADMIN and not principal.is_admin:
            raise Forbidden("This needs an administrator.")
        if principal.api_key_id is not None:
            if self.endpoint.scope is None:
                raise Forbidden("An API key cannot do this: sign in instead.", code="session_required")
            if not principal.may(self.endpoint.scope):
                raise Forbidden(
                    f"This API key lacks the scope {self.endpoint.scope}.",
                    code="scope_missing",
                    details={"scope": self.endpoint.scope},
                )

    def _allow_origin(self, origin: str) -> None:
        self.add_header("Vary", "Origin")
        if origin in self.services.settings.cors_origins:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", _CORS_EXPOSED)

    def options(self, **_path: str) -> None:
        if "Access-Control-Allow-Origin" in self._headers:
            self.set_header("Access-Control-Allow-Methods", ", ".join(sorted(self.route.endpoints)))
            self.set_header("Access-Control-Allow-Headers", _CORS_HEADERS)
            self.set_header("Access-Control-Max-Age", "600")
        self.set_header("Allow", ", ".join(sorted({*self.route.endpoints, "OPTIONS"})))
        self.set_status(204)
        self.clear_header("Content-Type")
        self.finish()

    # -- the body ----------------------------------------------------------------------------------------------------

    @property
    def _body_limit_bytes(self) -> int:
        return self.services.settings.request_body_limit_bytes

    def _bound_body(self) -> None:
        length = self.request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > self._body_limit_bytes + DISCARD_LIMIT_BYTES:
            raise self._too_large()

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The body is larger than the {self._body_limit_bytes} bytes that are accepted here.",
            details={"limitBytes": self._body_limit_bytes},
        )

    def data_received(self, chunk: bytes) -> None:
        self._received_bytes += len(chunk)
        if self._received_bytes <= self._body_limit_bytes:
            self._chunks.append(chunk)
            return
        self._chunks.clear()
        if self._received_bytes > self._body_limit_bytes + DISCARD_LIMIT_BYTES and not self._finished:
            self._write_envelope(self._too_large())

    def read_body(self) -> None:
        """Fill `body` and `query`. Raises PayloadTooLarge, MalformedRequest, InvalidInput or HTTP 415."""
        self.query = self.endpoint.query.parse(self.request.query_arguments)
        if self._received_bytes > self._body_limit_bytes:
            raise self._too_large()
        if self.request.method == "GET":
            return
        raw = self.raw_body
        if not raw:
            if not self.endpoint.body.empty:
                raise MalformedRequest("A JSON body is needed.", code="body_missing")
            self.body = {}
            return
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise tornado.web.HTTPError(415)
        self.body = self.endpoint.body.validate(parse_json_object(raw))

    @property
    def raw_body(self) -> bytes:
        return b"".join(self._chunks)

    @property
    def client_address(self) -> str:
        return client_address(
            self.request.remote_ip or "",
            self.request.headers.get("X-Forwarded-For"),
            self.services.settings.trusted_proxies,
        )

    # -- after the verb ----------------------------------------------------------------------------------------------

    async def answer_later(self, answer: Awaitable[Answer]) -> None:
        self.render_answer(await answer)

    async def answer_once(self, key: str, verb: Callable[[], Answer | Awaitable[Answer]]) -> None:
        """Run the verb under an idempotency key. The key belongs to the caller; method and path tell requests apart."""

        async def execute() -> RawAnswer:
            answer = verb()
            if not isinstance(answer, Answer):
                answer = await answer
            return RawAnswer(answer.status, answer.encoded())

        request = b"\0".join(((self.request.method or "").encode(), self.request.uri.encode(), self.raw_body))
        raw, replayed = await self.services.idempotency.run(
            scope=self.principal.user_id, key=key, request=request, execute=execute
        )
        self.render_answer(Answer(raw.body or None, raw.status, {"Idempotency-Replayed": "true"} if replayed else {}))

    def render_answer(self, answer: Answer) -> None:
        if self._finished:
            return  # the client was told already, or went away
        if answer.status != 200:
            self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        if answer.body is None:
            self.clear_header("Content-Type")
            self.finish()
            return
        self.finish(answer.encoded())

    def compute_etag(self) -> str | None:
        """None: hashing every body costs more than it saves. A handler that has a revision sets its own."""
        return None

    async def audit(self, action: str, subject: str, detail: Mapping[str, Any] | None = None) -> None:
        await self.services.audit.record(
            action,
            subject,
            actor=self.principal,
            request_id=self.request_id,
            address=self.client_address,
            detail=detail,
        )

    def on_finish(self) -> None:
        self._discount()

    def on_connection_close(self) -> None:
        super().on_connection_close()  # whoever waits for the body waits no more
        self._discount()

    def _discount(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self.services.lifecycle.request_ended()

    # -- errors ------------------------------------------------------------------------------------------------------

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, ControlPlaneError):
            self._write_envelope(error)
            return
        code, message = CODE_OF_STATUS.get(status_code, ("error", self._reason))
        self.finish(orjson.dumps({"error": message, "code": code, "details": None, "requestId": self.request_id}))

    def _write_envelope(self, error: ControlPlaneError) -> None:
        self.finish(self.render_error(error))

    def render_error(self, error: ControlPlaneError) -> bytes:
        """Set status and headers; the envelope is returned."""
        self.set_status(status_of(error))
        retry_after = retry_after_seconds(error)
        if retry_after is not None:
            self.set_header("Retry-After", str(retry_after))
        if isinstance(error, Unauthenticated):
            self.set_header("WWW-Authenticate", "Bearer")
        return orjson.dumps(envelope(error, self.request_id))

    def _break_off(self, error: ControlPlaneError) -> bytes:
        """The body cannot be read to its end, or does not come, and nothing was answered yet."""
        answer = self.render_last(self.render_error(error))
        self._finished = True
        self._discount()
        self.application.log_request(self)
        return answer

    def render_last(self, body: bytes) -> bytes:
        """The answer as the last one on its connection, for a bare socket."""
        self.set_header("Content-Length", str(len(body)))
        self.set_header("Connection", "close")
        status = self.get_status()
        lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in self._headers.get_all()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """As Tornado's, keeping the headers that were set: CORS and the request id belong on errors too."""
        if self._headers_written or self._finished:
            super().send_error(status_code, **kwargs)
            return
        self.set_status(status_code)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if isinstance(value, ControlPlaneError) and status_of(value) != 500:
            return  # an expected refusal: the access log has its status
        if isinstance(value, tornado.web.HTTPError):
            return
        logger.error("request failed", exc_info=(typ, value, tb), extra={"route": self.route.name})  # type: ignore[arg-type]


class NotFoundHandler(ApiHandler):
    """Every path that no route has."""

    def prepare(self) -> None:
        request_id_of_context.set(self.request_id)
        raise tornado.web.HTTPError(404)


def bearer_token(request: HTTPServerRequest) -> str:
    """Raises Unauthenticated when there is no bearer token (RFC 6750 section 2.1)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("A bearer token is needed.", code="token_missing")
    return token.strip()


def request_id_of(headers: HTTPHeaders) -> str:
    given = headers.get("X-Request-Id")
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(8)
