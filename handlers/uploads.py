"""Uploads to an instance's files: every refusal before the body, then the connection is handed to `proxying.upload`.

The answer is written here, on the bare connection, with the headers that every answer has.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from urllib.parse import quote

from controlplane.agents.client import PATHS
from controlplane.errors import AgentRefused, ControlPlaneError, InvalidInput, MalformedRequest, Unavailable
from controlplane.models import InstanceKind
from controlplane.ports import AgentResponse
from controlplane.proxying.upload import ClientGone, Order, linger, session_ended
from handlers.instances import InstanceHandler, forwarded_headers
from handlers.takeover import take_over

logger = logging.getLogger("controlplane.http")

SEND_SECONDS = 30.0
_SENTENCE = "The agent refused the upload."


class UploadHandler(InstanceHandler):
    async def prepare(self) -> None:
        """The whole upload: the connection is taken over before Tornado reads any of the body."""
        if self.request.method != "POST":
            preparing = super().prepare()
            if preparing is not None:
                await preparing
            return
        try:
            preparing = super().prepare()
            if preparing is not None:
                await preparing
            order = self._order(self.path_kwargs["instance_id"])
            with self.services.uploads.place(self.principal.user_id):
                await self._carry(order)
        except ControlPlaneError as error:
            client, _ = take_over(self)
            await self._answer(client, self.render_error(error))

    def _bound_body(self) -> None:
        """An upload's bounds are its own."""

    # -- before the body -----------------------------------------------------------------------------------------------

    def _order(self, reference: str) -> Order:
        services = self.services
        if services.lifecycle.draining:
            raise Unavailable("The control plane is stopping; send the file again.")
        self.query = self.endpoint.query.parse(self.request.query_arguments)
        instance = services.instances.find_usable(reference, self.principal, self.kind)
        length = self._length()
        services.uploads.check_length(length)
        return Order(
            user_id=self.principal.user_id,
            instance=instance,
            endpoint=services.instances.endpoint(instance),
            target=f"{PATHS['upload']}?path={quote(_checked_path(self.query['path']), safe='')}",
            length=length,
            request_id=self.request_id,
            expects_continue=self.request.headers.get("Expect", "").lower() == "100-continue",
        )

    def _length(self) -> int | None:
        """RFC 9112 section 6: one framing, read as the next hop will. None for a chunked body."""
        headers = self.request.headers
        lengths, codings = headers.get_list("Content-Length"), headers.get_list("Transfer-Encoding")
        if codings:
            if lengths or [coding.lower() for coding in codings] != ["chunked"]:
                raise MalformedRequest("The body's framing is ambiguous or unknown.", code="framing_invalid")
            return None
        if not lengths:
            return 0
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) < 19):
            raise MalformedRequest("Content-Length is not a number.", code="framing_invalid")
        if headers.get("Content-Type", "").lower().startswith("multipart/"):
            raise InvalidInput({"Content-Type": ["send the file as the raw body, not as a form"]})
        return int(lengths[0])

    # -- with the body -------------------------------------------------------------------------------------------------

    async def _carry(self, order: Order) -> None:
        await self.audit("instance.upload", order.instance.id, {"path": self.query["path"], "bytes": order.length})
        stopped: asyncio.Future[ControlPlaneError] = asyncio.get_running_loop().create_future()
        client, ahead = take_over(self)
        watch = self.services.live.watch(
            self.principal, lambda: None if stopped.done() else stopped.set_result(session_ended())
        )
        try:
            try:
                response = await self.services.uploads.carry(client, ahead, order, stopped)
                body = self._render(response)
            except ClientGone:
                logger.info("an upload's client went away", extra={"request_id": self.request_id})
                self.set_status(499)  # nginx's: the client closed the request
                self._end(client)
                return
            except ControlPlaneError as error:
                body = self.render_error(error)
            await self._answer(client, body)
        finally:
            self.services.live.release(watch)
            stopped.cancel()

    def _render(self, response: AgentResponse) -> bytes:
        if not 200 <= response.status < 300:
            return self.render_error(AgentRefused.from_body(_SENTENCE, status=response.status, body=response.body))
        self.set_status(response.status)
        for name, value in forwarded_headers(response.headers.get("content-type", "")).items():
            self.set_header(name, value)
        return response.body

    # -- after it ------------------------------------------------------------------------------------------------------

    async def _answer(self, client: socket.socket, body: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await asyncio.get_running_loop().sock_sendall(client, self.render_last(body))
            await linger(client)
        except (OSError, TimeoutError):
            logger.info("an upload's answer did not arrive", extra={"request_id": self.request_id})
        finally:
            self._end(client)

    def _end(self, client: socket.socket) -> None:
        client.close()
        self._discount()
        self.application.log_request(self)


def _checked_path(path: str) -> str:
    """The agent judges where a path leads; what can be no file's path is refused here."""
    if not path.isprintable() or path.endswith("/") or len(path.encode()) > 4096:
        raise InvalidInput({"path": ["must be the relative path of a file, without control characters"]})
    return path


class GameServerUploadHandler(UploadHandler):
    kind = InstanceKind.GAME


class DevContainerUploadHandler(UploadHandler):
    kind = InstanceKind.DEV
