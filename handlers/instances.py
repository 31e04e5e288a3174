"""What game servers and dev containers share: list, read, state, power and console command.

Reads come from memory and never call an agent. `game.py` and `dev.py` say which kind a route serves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from controlplane.agents.client import AgentReply
from controlplane.models import AgentEndpoint, Instance, InstanceKind
from handlers.base import Answer, ApiHandler

ForwardedCall = Callable[[AgentEndpoint, str], Awaitable[AgentReply]]


class InstanceHandler(ApiHandler):
    """`kind` is None where a route serves both."""

    kind: ClassVar[InstanceKind | None] = None

    def instance(self, reference: str) -> Instance:
        return self.services.instances.find(reference, self.principal, self.kind)


class InstanceListHandler(InstanceHandler):
    def on_get(self) -> Answer:
        return Answer(self.services.instance_views.page(self.principal, self.kind, self.query))


class InstanceReadHandler(InstanceHandler):
    def on_get(self, instance_id: str) -> Answer:
        return Answer(self.services.instance_views.document(self.instance(instance_id)))


class InstanceStateHandler(InstanceHandler):
    """The revision is the ETag, so that a portal that polls mostly gets 304 and no body."""

    def on_get(self, instance_id: str) -> Answer:
        instance = self.instance(instance_id)
        views = self.services.instance_views
        self.set_header("ETag", views.etag(instance))
        self.set_header("Cache-Control", "private, no-cache")
        if self.check_etag_header():
            return Answer(status=304)
        return Answer(views.state_document(instance))


class ForwardingHandler(InstanceHandler):
    """Forwards one call to the agent and passes its answer through."""

    async def forward(self, reference: str, action: str, call: ForwardedCall) -> Answer:
        instance = self.services.instances.find_usable(reference, self.principal, self.kind)
        await self.audit(f"instance.{action}", instance.id)
        reply = await call(self.services.instances.endpoint(instance), self.request_id)
        self.services.poller.poll_now(instance.id)
        return forwarded(reply)


def forwarded(reply: AgentReply) -> Answer:
    """The agent's 2xx as it is."""
    if not reply.raw:
        return Answer(status=reply.status)
    return Answer(reply.raw, reply.status, forwarded_headers(reply.content_type))


def forwarded_headers(content_type: str) -> dict[str, str]:
    """JSON is what this API speaks; anything else is a file to save, and never a page of our origin."""
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return {}
    return {"Content-Type": content_type or "application/octet-stream", "Content-Disposition": "attachment"}


class PowerHandler(ForwardingHandler):
    async def on_post(self, instance_id: str, action: str) -> Answer:
        agents = self.services.agents
        calls = {"start": agents.start, "stop": agents.stop, "restart": agents.restart}
        return await self.forward(
            instance_id, action, lambda endpoint, request_id: calls[action](endpoint, request_id=request_id)
        )


class ConsoleCommandHandler(ForwardingHandler):
    async def on_post(self, instance_id: str) -> Answer:
        command = self.body["command"]
        return await self.forward(
            instance_id,
            "console_command",
            lambda endpoint, request_id: self.services.agents.send_console_command(
                endpoint, command, request_id=request_id
            ),
        )
