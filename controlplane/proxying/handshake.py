"""A websocket's opening handshake, asked of an app in a browser's name and given back as the app answered it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

import httptools

from controlplane.agents.faults import fault_of
from controlplane.errors import AgentProtocolError, AgentTimeout
from controlplane.proxying.headers import Route, response_fields

HEAD_LIMIT_BYTES = 32 << 10
ANSWER_SECONDS = 30.0
UPGRADE_FRAMING = "Connection: Upgrade\r\nUpgrade: websocket\r\n"


@dataclass(slots=True)
class Handshake:
    """What the app answered. `behind` is what came behind the head of a 101; `received` everything, of any answer."""

    status: int = 0
    reason: bytes = b""
    fields: list[tuple[str, str]] = field(default_factory=list)
    received: bytes = b""
    behind: bytes = b""
    is_complete: bool = False

    # -- httptools ---------------------------------------------------------------------------------------------------

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_complete:
            self.fields.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self.is_complete = True


async def ask_for_upgrade(upstream: socket.socket, head: bytes) -> Handshake:
    """Send the request and read the head of the answer. Raises AgentTimeout or AgentProtocolError."""
    loop = asyncio.get_running_loop()
    handshake = Handshake()
    parser = httptools.HttpResponseParser(handshake)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await loop.sock_sendall(upstream, head)
            while not handshake.is_complete:
                await _read_on(upstream, parser, handshake)
    except TimeoutError as error:
        raise AgentTimeout(
            f"The app did not answer the websocket's handshake within {ANSWER_SECONDS:.0f} s."
        ) from error
    except OSError as error:
        raise AgentProtocolError("The app closed the connection instead of answering the handshake.") from error
    return handshake


async def _read_on(upstream: socket.socket, parser: httptools.HttpResponseParser, handshake: Handshake) -> None:
    data = await asyncio.get_running_loop().sock_recv(upstream, 64 << 10)
    if not data:
        raise AgentProtocolError("The app closed the connection instead of answering the handshake.")
    handshake.received += data
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade as upgrade:
        handshake.behind = data[upgrade.args[0] :]
    except httptools.HttpParserError as error:
        raise fault_of(error) from error
    if handshake.is_complete:
        handshake.status = parser.get_status_code()
    elif len(handshake.received) > HEAD_LIMIT_BYTES:
        raise AgentProtocolError("The answer's headers are too large.", code="headers_too_large")


def switching_protocols(handshake: Handshake, route: Route) -> bytes:
    """The head of a 101 for the browser, who checks its `Sec-WebSocket-Accept` itself."""
    lines = [f"HTTP/1.1 101 {handshake.reason.decode('latin-1')}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"{name}: {value}" for name, value in response_fields(handshake.fields, route)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
