"""The listening socket: starts to accept, and on the way out lets what is under way finish."""

from __future__ import annotations

import asyncio
import socket

import tornado.httpserver
from tornado.iostream import IOStream

from controlplane.listener import open_listener
from controlplane.services import Services
from handlers.app import make_app
from handlers.strict_stream import ClientLimits, StrictStream

HEADER_LIMIT_BYTES = 32 << 10
BODY_LIMIT_BYTES = 1 << 40  # bodies are streamed to the handlers, which bound them with an answer that says so


class _StrictServer(tornado.httpserver.HTTPServer):
    """Its streams keep each request's head as it came, and give up clients that keep still."""

    limits: ClientLimits

    def handle_stream(self, stream: IOStream, address: tuple[object, ...]) -> None:
        strict = StrictStream(stream.socket, self.limits, max_buffer_size=stream.max_buffer_size)
        super().handle_stream(strict, address)


class ApiServer:
    """Serves the route table over HTTP/1.1 on the address of the settings."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._server = _StrictServer(
            make_app(services),
            no_keep_alive=False,
            max_header_size=HEADER_LIMIT_BYTES,
            max_body_size=BODY_LIMIT_BYTES,
        )
        settings = services.settings
        self._server.limits = ClientLimits(settings.request_head_seconds, settings.client_idle_seconds)

    def listen(self, listener: socket.socket | None = None) -> int:
        """The port: that of `listener`, or of one opened as the settings say. Raises ConfigurationError."""
        settings = self._services.settings
        listener = listener or open_listener(settings.http_address, settings.http_port)
        self._server.add_sockets([listener])
        port: int = listener.getsockname()[1]
        return port

    async def drain(self, *, limit_seconds: float) -> None:
        """Accept nothing new, wait for the requests under way, then close every connection."""
        self._services.lifecycle.draining = True
        self._services.events.close()
        self._server.stop()
        under_way = self._services.lifecycle.until_idle()
        await asyncio.wait((under_way,), timeout=limit_seconds)
        under_way.cancel()
        self._services.uploads.stop()
        self._services.ide.splices.close()
        self._services.ide.upstreams.close()
        await self._server.close_all_connections()
