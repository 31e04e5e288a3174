"""An agent's console as a bare socket: prints what a test says, echoes what it is sent, and shows if it was held up.

Every other request is answered as a healthy agent does. Without the reference agent's batching: one frame a text.
"""

from __future__ import annotations

import asyncio
from typing import cast

from controlplane.models import AgentEndpoint
from controlplane.proxying.frames import accept_value
from controlplane.proxying.websocket import WebSocket

TOKEN = "console-agent-token-0123456789"
_HEALTHY = b'{"ready": true, "state": "running"}'


class Stream(WebSocket):
    """One open console stream, the agent's side."""

    __slots__ = ("_agent", "congestions", "lines")

    def __init__(self, agent: ConsoleAgent) -> None:
        super().__init__(is_client=False, message_limit_bytes=1 << 20)
        self._agent = agent
        self.lines: list[str] = []
        self.congestions = 0

    def message_received(self, message: bytes, *, is_text: bool) -> None:
        self.lines.append(message.decode())
        self._agent.said(self, message)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.congestions += 1

    def data_received(self, data: bytes) -> None:
        if not self._agent.is_deaf:
            super().data_received(data)

    def closed(self, code: int) -> None:
        self._agent.streams.remove(self)


class ConsoleAgent:
    """A real server; `async with` it. `is_deaf` makes it ignore what it is sent, pings too."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.is_deaf = False
        self.opened = 0

    async def __aenter__(self) -> ConsoleAgent:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Door(self), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.endpoint = AgentEndpoint("127.0.0.1", self.port, TOKEN)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for stream in tuple(self.streams):
            stream.abort()
        await self._server.wait_closed()

    def said(self, stream: Stream, message: bytes) -> None:
        """Echo."""
        stream.send_text(message)

    def print(self, text: str) -> None:
        """To whoever watches."""
        for stream in self.streams:
            stream.send_text(text.encode())


class _Door(asyncio.Protocol):
    def __init__(self, agent: ConsoleAgent) -> None:
        self._agent = agent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if b"upgrade: websocket" not in data.lower():
            for _ in range(data.count(b"\r\n\r\n")):
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(_HEALTHY), _HEALTHY)
                )
            return
        key = next(line[18:].strip() for line in data.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_value(key.decode()).encode()
        )
        stream = Stream(self._agent)
        self._agent.streams.append(stream)
        self._agent.opened += 1
        self._transport.set_protocol(stream)
        stream.connection_made(self._transport)
