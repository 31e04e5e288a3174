"""A gateway for the tests, and a server that answers it as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.testing import bind_unused_port

from controlplane.billing.stripe_gateway import StripeGateway
from controlplane.clock import SystemClock
from tests.fake_stripe_process import API_KEY, WEBHOOK_SECRET


@asynccontextmanager
async def gateway_to(url: str, *, timeout_seconds: float = 20, key: str = API_KEY) -> AsyncIterator[StripeGateway]:
    gateway = StripeGateway(
        secret_key=key,
        webhook_secret=WEBHOOK_SECRET,
        api_base=url,
        timeout_seconds=timeout_seconds,
        clock=SystemClock(),
    )
    try:
        yield gateway
    finally:
        await gateway.close()


@asynccontextmanager
async def serving(answer: Callable[[HTTPServerRequest], tuple[int, dict[str, str], bytes]]) -> AsyncIterator[str]:
    """A server on the test's own loop that answers each request so; its URL."""

    def serve(request: HTTPServerRequest) -> None:
        status, headers, body = answer(request)
        assert request.connection is not None
        request.connection.write_headers(ResponseStartLine("HTTP/1.1", status, ""), HTTPHeaders(headers), body)
        request.connection.finish()

    sockets, port = bind_unused_port()
    server = HTTPServer(serve)
    server.add_socket(sockets)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()
        await server.close_all_connections()
