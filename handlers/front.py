"""Before every route: the host of a request decides whether it is for the API, for an IDE, or for nobody here."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

import tornado.web
from tornado.http1connection import HTTP1Connection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
)

from controlplane.errors import MalformedRequest, Misdirected
from controlplane.ide.targets import Elsewhere
from controlplane.services import Services
from handlers.ide_request import IdeRequest
from handlers.message import Message
from handlers.request_log import RequestLog


class Front(HTTPServerConnectionDelegate):
    """What the server hands its requests to."""

    def __init__(self, application: tornado.web.Application, services: Services, log: RequestLog) -> None:
        self._application = application
        self._services = services
        self._log = log

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _Choice(self, server_conn, cast(HTTP1Connection, request_conn))

    def on_close(self, server_conn: object) -> None:
        self._application.on_close(server_conn)

    def choose(
        self, server_conn: object, connection: HTTP1Connection, start_line: RequestStartLine, headers: HTTPHeaders
    ) -> HTTPMessageDelegate:
        hosts = headers.get_list("Host")
        if len(hosts) > 1 or not start_line.path.startswith("/"):
            return Unclear(self._services, self._log, connection)
        place = self._services.ide.hosts.find(hosts[0] if hosts else None, start_line.path)
        if place is Elsewhere.API:
            return self._application.start_request(server_conn, connection)
        if isinstance(place, Elsewhere):
            return UnknownHost(self._services, self._log, connection)
        return IdeRequest(self._services, self._log, connection, place)


class _Choice(HTTPMessageDelegate):
    """Stands in for the delegate that is chosen once the host is known."""

    __slots__ = ("_chosen", "_connection", "_front", "_server_conn")

    def __init__(self, front: Front, server_conn: object, connection: HTTP1Connection) -> None:
        self._front = front
        self._server_conn = server_conn
        self._connection = connection
        self._chosen: HTTPMessageDelegate | None = None

    def headers_received(self, start_line: object, headers: HTTPHeaders) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        self._chosen = self._front.choose(self._server_conn, self._connection, start_line, headers)
        return self._chosen.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        assert self._chosen is not None
        return self._chosen.data_received(chunk)

    def finish(self) -> None:
        assert self._chosen is not None
        self._chosen.finish()

    def on_connection_close(self) -> None:
        if self._chosen is not None:
            self._chosen.on_connection_close()


class UnknownHost(Message):
    """A host that is not ours, or that is of no IDE: never the API (RFC 9110 section 15.5.20)."""

    route = "(unknown host)"

    def decide(self) -> None:
        raise Misdirected("This host is not served here.")


class Unclear(Message):
    """Several Hosts, or a target that is no path: for whom it is depends on who reads it (RFC 9112 section 3.2)."""

    route = "(unknown host)"

    def decide(self) -> None:
        raise MalformedRequest("This request has several Hosts, or its target is not a path.", code="request_refused")
