"""The listening socket: starts to accept, and on the way out lets what is under way finish."""

from __future__ import annotations

import asyncio
import socket

import tornado.httpserver

from controlplane.listener import open_listener
from controlplane.services import Services
from handlers.app import make_app

HEADER_LIMIT_BYTES = 32 << 10
BODY_LIMIT_BYTES = 1 << 40  # bodies are streamed to the handlers, which bound them with an answer that says so
IDLE_CONNECTION_SECONDS = 75


class ApiServer:
    """Serves the route table over HTTP/1.1 on the address of the settings."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._server = tornado.httpserver.HTTPServer(
            make_app(services),
            no_keep_alive=False,
            max_header_size=HEADER_LIMIT_BYTES,
            max_body_size=BODY_LIMIT_BYTES,
            idle_connection_timeout=IDLE_CONNECTION_SECONDS,
        )

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
        await self._server.close_all_connections()
