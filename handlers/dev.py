"""Dev containers: `/api/dev/…`, with the controls of their code-server."""

from __future__ import annotations

from controlplane.models import InstanceKind
from handlers import instances, operations
from handlers.base import Answer


class DevContainersHandler(operations.ProvisioningListHandler):
    kind = InstanceKind.DEV


class DevContainerHandler(operations.DeletableHandler):
    kind = InstanceKind.DEV


class DevContainerStateHandler(instances.InstanceStateHandler):
    kind = InstanceKind.DEV


class DevContainerPowerHandler(instances.PowerHandler):
    kind = InstanceKind.DEV


class DevContainerCommandHandler(instances.ConsoleCommandHandler):
    kind = InstanceKind.DEV


class CodeServerHandler(instances.ForwardingHandler):
    kind = InstanceKind.DEV

    async def on_post(self, instance_id: str, action: str) -> Answer:
        agents = self.services.agents
        calls = {
            "start": agents.start_codeserver,
            "stop": agents.stop_codeserver,
            "restart": agents.restart_codeserver,
        }
        return await self.forward(
            instance_id,
            f"codeserver_{action}",
            lambda endpoint, request_id: calls[action](endpoint, request_id=request_id),
        )
