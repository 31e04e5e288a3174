"""The client's side of the WebSocket handshake with an agent (RFC 6455 section 4.1). No redirects, proxies, names.

The frames that follow are `websocket.py`'s; who may connect is decided before.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Callable
from typing import TypeVar, cast

import httptools

from controlplane.agents.faults import fault_of, unreachable
from controlplane.errors import AgentError, AgentProtocolError, AgentRefused, AgentTimeout, AgentUnreachable
from controlplane.models import AgentEndpoint
from controlplane.proxying.frames import accept_value
from controlplane.proxying.websocket import WebSocket

HEAD_LIMIT_BYTES = 16 << 10

Socket = TypeVar("Socket", bound=WebSocket)
DialCheck = Callable[[str], None]
"""Raises a ControlPlaneError when an address may not be dialled."""


async def open_websocket(
    endpoint: AgentEndpoint,
    target: str,
    make: Callable[[], Socket],
    *,
    check_dial: DialCheck,
    tls: ssl.SSLContext,
    timeout_seconds: float,
) -> Socket:
    """What `make` made, opened. Raises AgentUnreachable, AgentTimeout, AgentRefused or AgentProtocolError."""
    check_dial(endpoint.address)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_seconds):
            transport, handshake = await loop.create_connection(
                lambda: _Handshake(loop.create_future()),
                endpoint.address,
                endpoint.port,
                ssl=tls if endpoint.https else None,
            )
            try:
                return await handshake.run(endpoint, target, make)
            except BaseException:
                transport.abort()
                raise
    except TimeoutError as error:
        raise AgentTimeout(f"The agent did not open its console within {timeout_seconds:.3g} s.") from error
    except OSError as error:
        raise unreachable(error) from error


class _Handshake(asyncio.Protocol):
    """Collects the answer's head. `outcome` is what came behind it."""

    def __init__(self, outcome: asyncio.Future[bytes]) -> None:
        self._outcome = outcome
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._received_bytes = 0
        self._key = base64.b64encode(os.urandom(16)).decode()

    async def run(self, endpoint: AgentEndpoint, target: str, make: Callable[[], Socket]) -> Socket:
        transport = cast(asyncio.Transport, self._transport)
        transport.write(_request(endpoint, target, self._key))
        behind = await self._outcome
        socket = make()
        transport.set_protocol(socket)
        socket.connection_made(transport)
        if behind:
            socket.data_received(behind)
        return socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(AgentUnreachable("The agent closed the connection instead of opening its console."))

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._finish(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._fail(fault_of(error))
        else:
            if self._received_bytes > HEAD_LIMIT_BYTES:
                self._fail(AgentProtocolError("The answer's headers are too large.", code="headers_too_large"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 101:
            self._fail(AgentRefused(f"The agent did not open its console: status {status}.", status=status, body=None))

    def _finish(self, behind: bytes) -> None:
        if self._headers.get("sec-websocket-accept") != accept_value(self._key):
            self._fail(AgentProtocolError("The agent's WebSocket handshake does not match.", code="handshake_invalid"))
        elif "sec-websocket-extensions" in self._headers:
            self._fail(AgentProtocolError("The agent chose an extension unasked.", code="handshake_invalid"))
        elif not self._outcome.done():
            self._outcome.set_result(behind)

    def _fail(self, error: AgentError) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)


def _request(endpoint: AgentEndpoint, target: str, key: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: {endpoint.authority}\r\nAuthorization: Bearer {endpoint.token}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode("latin-1")
