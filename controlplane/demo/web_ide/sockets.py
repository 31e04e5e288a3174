"""The websockets: a shell, an echo, a flood, and upgrades that are refused.

As with code-server a Close frame is not answered: the connection just ends. Messages may be large: a saved file is one.
"""

from __future__ import annotations

from typing import Any

from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from controlplane.demo.web_ide.origin import is_same_origin
from controlplane.demo.web_ide.terminals import Terminals

NAME_LIMIT = 64
FRAME_LIMIT_BYTES = 8 << 20
FLOOD_LIMIT_BYTES = 1 << 30
DECLINED = ("server_max_window_bits", "server_no_context_takeover", "client_no_context_takeover")


class Protocol(WebSocketProtocol13):
    """Ends as code-server does: a bare FIN, no Close frame."""

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        self.client_terminated = self.server_terminated = True
        super().close()


class Socket(WebSocketHandler):
    def prepare(self) -> None:
        if not is_same_origin(self.request.headers):
            raise HTTPError(403)

    def check_origin(self, origin: str) -> bool:
        return True  # judged in prepare

    def get_websocket_protocol(self) -> WebSocketProtocol13:
        return Protocol(
            self,
            False,
            _WebSocketParams(
                max_message_size=self.max_message_size, compression_options=self.get_compression_options()
            ),
        )

    def get_compression_options(self) -> dict[str, Any] | None:
        """Deflate where it is offered plainly; an offer with limits is declined, as code-server declines it."""
        offers = self.request.headers.get("Sec-WebSocket-Extensions", "")
        if "permessage-deflate" not in offers or any(word in offers for word in DECLINED):
            return None
        return {"compression_level": 1}

    def send(self, message: bytes) -> None:
        """A viewer that is gone is no error."""
        try:
            self.write_message(message, binary=True)
        except WebSocketClosedError:
            return


class Echo(Socket):
    """Sends every message back; the text `bye` ends the connection. Selects the last subprotocol that is offered."""

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[-1] if subprotocols else None

    async def on_message(self, message: str | bytes) -> None:
        if message == "bye":
            self.close()
            return
        await self.write_message(message, binary=isinstance(message, bytes))


class Flood(Socket):
    """`?bytes=N&frame=M`: sends so much in frames of that size, then ends."""

    async def open(self, *_args: str, **_kwargs: str) -> None:
        total = min(int(self.get_query_argument("bytes")), FLOOD_LIMIT_BYTES)
        frame = bytes(min(int(self.get_query_argument("frame", "262144")), FRAME_LIMIT_BYTES))
        for _ in range(0, total, len(frame)):
            await self.write_message(frame, binary=True)
        self.close()


class TerminalSocket(Socket):
    """`?name=`: the shell of that name. Binary messages are keys one way and output the other."""

    def initialize(self, terminals: Terminals) -> None:
        self._terminals = terminals

    def open(self, *_args: str, **_kwargs: str) -> None:
        self._terminal = self._terminals.get(self.get_query_argument("name", "")[:NAME_LIMIT])
        self._terminal.watch(self._show)

    def on_message(self, message: str | bytes) -> None:
        if self._terminal.is_open:
            self._terminal.type(message if isinstance(message, bytes) else message.encode())

    def on_close(self) -> None:
        self._terminal.leave(self._show)

    def _show(self, output: bytes | None) -> None:
        if output is None:
            self.close()
        else:
            self.send(output)


class Refused(RequestHandler):
    """Answers an upgrade with the status in its path, as an application that wants a login would."""

    def get(self, status: str) -> None:
        self.set_status(int(status))
        self.finish({"refused": int(status)})
