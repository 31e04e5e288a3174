"""Consoles: the websocket's handshake, and the one-time ticket that may stand for a token in its URL.

What is said on the websocket, and to whom, is `proxying.console_hub`'s.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import ClassVar
from urllib.parse import urlsplit

from controlplane.clock import rfc3339
from controlplane.errors import Forbidden, MalformedRequest, StorageUnavailable
from controlplane.models import InstanceKind
from controlplane.proxying.frames import DEFLATE_ANSWER, accept_value, accepts_deflate
from handlers.base import Answer, ApiHandler, bearer_token
from handlers.instances import InstanceHandler
from handlers.takeover import take_over


class ConsoleTicketHandler(InstanceHandler):
    async def on_post(self, instance_id: str) -> Answer:
        instance = self.services.instances.find_usable(instance_id, self.principal, self.kind)
        ticket = await self.services.console_tickets.issue(self.principal, bearer_token(self.request), instance.id)
        return Answer({"ticket": ticket.secret, "expiresAt": rfc3339(ticket.expires_at)}, 201)


class ConsoleSocketHandler(ApiHandler):
    """RFC 6455 section 4.2. The viewer authenticates on the websocket: a browser cannot set headers for it."""

    kind: ClassVar[InstanceKind]

    async def on_get(self, instance_id: str) -> Answer:
        services = self.services
        if not services.lifecycle.serving:
            raise StorageUnavailable(f"Not serving yet: {services.lifecycle.problem}.")
        self._check_origin()
        if "websocket" not in self.request.headers.get("Upgrade", "").lower():
            headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
            return Answer(self._upgrade_needed(), 426, headers)
        key = self._check_handshake()
        compressed = accepts_deflate(self.request.headers.get("Sec-WebSocket-Extensions", ""))
        viewer = services.consoles.new_viewer(
            self.kind,
            instance_id,
            request_id=self.request_id,
            address=self.client_address,
            compressed=compressed,
        )
        try:
            connection, ahead = take_over(self)
            self._discount()
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: viewer, connection)
        except BaseException:
            services.consoles.left(viewer)
            raise
        transport.write(_switching_protocols(key, self.request_id, compressed=compressed))
        if "ticket" in self.query:
            services.consoles.redeem(viewer, self.query["ticket"])
        if ahead:
            viewer.data_received(ahead)
        return Answer()

    def _upgrade_needed(self) -> dict[str, object]:
        return {
            "error": "This is a websocket: connect with the WebSocket protocol.",
            "code": "upgrade_required",
            "details": None,
            "requestId": self.request_id,
        }

    def _check_origin(self) -> None:
        """A page of another site may not open consoles. Programs that are no browsers send no Origin."""
        origin = self.request.headers.get("Origin")
        if origin is None:
            return
        settings = self.services.settings
        own = urlsplit(settings.public_url)
        if origin != f"{own.scheme}://{own.netloc}" and origin not in settings.cors_origins:
            raise Forbidden(f"Consoles may not be opened from {origin[:200]}.", code="origin_refused")

    def _check_handshake(self) -> str:
        headers = self.request.headers
        tokens = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
        if "upgrade" not in tokens or headers.get("Sec-WebSocket-Version") != "13":
            raise MalformedRequest("Not a WebSocket handshake of version 13.", code="handshake_invalid")
        key = headers.get("Sec-WebSocket-Key", "")
        try:
            is_good = len(base64.b64decode(key, validate=True)) == 16
        except binascii.Error:
            is_good = False
        if not is_good:
            raise MalformedRequest("Sec-WebSocket-Key is not 16 bytes in base64.", code="handshake_invalid")
        return key


def _switching_protocols(key: str, request_id: str, *, compressed: bool) -> bytes:
    extensions = f"Sec-WebSocket-Extensions: {DEFLATE_ANSWER}\r\n" if compressed else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_value(key)}\r\n{extensions}X-Request-Id: {request_id}\r\n\r\n"
    ).encode("latin-1")


class GameServerConsoleHandler(ConsoleSocketHandler):
    kind = InstanceKind.GAME


class DevContainerConsoleHandler(ConsoleSocketHandler):
    kind = InstanceKind.DEV


class GameServerConsoleTicketHandler(ConsoleTicketHandler):
    kind = InstanceKind.GAME


class DevContainerConsoleTicketHandler(ConsoleTicketHandler):
    kind = InstanceKind.DEV
