"""Operations over the API: asking for instances and for their end, what is under way, what administrators do about it.

The instances' own routes are those of `game` and `dev`, which take `ProvisioningListHandler` and `DeletableHandler`.
"""

from __future__ import annotations

from controlplane.models import FINISHED_PHASES, Operation, OperationKind, Phase
from controlplane.provisioning.documents import admin_operation_document, operation_document
from controlplane.provisioning.machine import NEEDS_AN_ADMINISTRATOR
from handlers.base import Answer, ApiHandler
from handlers.instances import InstanceListHandler, InstanceReadHandler

_PHASES_OF_STATE = {
    "any": None,
    "underWay": [phase for phase in Phase if phase not in FINISHED_PHASES],
    "needsAdministrator": sorted(NEEDS_AN_ADMINISTRATOR),
}


class ProvisioningListHandler(InstanceListHandler):
    """A list of instances that also makes new ones."""

    async def on_post(self) -> Answer:
        assert self.kind is not None
        operation = await self.services.provisioning.provision(
            self.principal,
            self.kind,
            name=self.body["name"],
            plan=self.body["plan"],
            key=self.request.headers.get("Idempotency-Key"),
        )
        await self.audit("instance.provision", operation.instance_id, {"operation": operation.id})
        return _accepted(operation)


class DeletableHandler(InstanceReadHandler):
    async def on_delete(self, instance_id: str) -> Answer:
        instance = self.instance(instance_id)
        operation = await self.services.provisioning.request(OperationKind.DELETE, instance, self.principal.user_id)
        await self.audit("instance.delete", instance.id, {"operation": operation.id, "vmid": instance.vmid})
        return _accepted(operation)


class OperationsHandler(ApiHandler):
    """The caller's own, newest first."""

    async def on_get(self) -> Answer:
        shown, next_after = await self.services.provisioning.page(
            owner_id=self.principal.user_id, limit=self.query["limit"], after=self.query.get("after")
        )
        return Answer({"items": [operation_document(each) for each in shown], "nextAfter": next_after})


class OperationHandler(ApiHandler):
    async def on_get(self, operation_id: str) -> Answer:
        operation = await self.services.provisioning.get(operation_id, self.principal)
        return Answer(_document(self, operation))


class OperationCancelHandler(ApiHandler):
    async def on_post(self, operation_id: str) -> Answer:
        operation = await self.services.provisioning.cancel(operation_id, self.principal)
        await self.audit("operation.cancel", operation.id, {"instance": operation.instance_id})
        return Answer({"operation": _document(self, operation)}, status=202)


class AdminOperationsHandler(ApiHandler):
    """Everybody's, newest first."""

    async def on_get(self) -> Answer:
        shown, next_after = await self.services.provisioning.page(
            owner_id=None,
            phases=_PHASES_OF_STATE[self.query["state"]],
            limit=self.query["limit"],
            after=self.query.get("after"),
        )
        return Answer({"items": [admin_operation_document(each) for each in shown], "nextAfter": next_after})


class AdminOperationHandler(ApiHandler):
    async def on_post(self, operation_id: str, action: str) -> Answer:
        provisioning = self.services.provisioning
        operation = await (provisioning.retry if action == "retry" else provisioning.forget)(operation_id)
        await self.audit(
            f"operation.{action}",
            operation.id,
            {"instance": operation.instance_id, "vmid": operation.vmid, "leftBehind": list(operation.left_behind)},
        )
        return Answer({"operation": admin_operation_document(operation)}, status=202 if action == "retry" else 200)


def _accepted(operation: Operation) -> Answer:
    return Answer({"operation": operation_document(operation)}, status=202)


def _document(handler: ApiHandler, operation: Operation) -> dict[str, object]:
    return (admin_operation_document if handler.principal.is_admin else operation_document)(operation)
