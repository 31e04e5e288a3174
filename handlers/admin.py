"""What only administrators do: register, change and remove instances; suspend and unsuspend users and instances."""

from __future__ import annotations

from typing import Any

from controlplane.errors import Conflict, InvalidInput, NotFound
from controlplane.instances import Registration
from controlplane.models import Instance, InstanceKind, OperationKind, Suspension, User
from handlers.auth import user_document
from handlers.base import Answer, ApiHandler
from handlers.instances import InstanceHandler, InstanceListHandler

_FIELD_OF_KEY = {"ownerId": "owner_id", "idePort": "ide_port", "gamePort": "game_port"}


class AdminInstancesHandler(InstanceListHandler):
    async def on_post(self) -> Answer:
        body = self.body
        instance = await self.services.instances.register(
            Registration(
                kind=InstanceKind(body["kind"]),
                name=body["name"],
                vmid=body["vmid"],
                address=body["address"],
                port=body["port"],
                token=body["token"],
                owner_id=body["ownerId"],
                https=body["https"],
                ide_port=body["idePort"],
                game_port=body["gamePort"],
            )
        )
        await self.audit("instance.register", instance.id, {"vmid": instance.vmid, "ownerId": instance.owner_id})
        return Answer(_admin_document(self, instance), status=201)


class AdminInstanceHandler(InstanceHandler):
    def on_get(self, instance_id: str) -> Answer:
        return Answer(_admin_document(self, self.instance(instance_id)))

    async def on_patch(self, instance_id: str) -> Answer:
        if not self.body:
            raise InvalidInput({}, "There is nothing to change in an empty body.")
        changes: dict[str, Any] = {_FIELD_OF_KEY.get(key, key): value for key, value in self.body.items()}
        instance = await self.services.instances.update(self.instance(instance_id).id, changes)
        await self.audit("instance.update", instance.id, {"fields": sorted(self.body)})
        return Answer(_admin_document(self, instance))

    async def on_delete(self, instance_id: str) -> Answer:
        instance = self.instance(instance_id)
        await self.services.instances.remove(instance.id)
        await self.audit("instance.remove", instance.id, {"vmid": instance.vmid})
        return Answer(status=204)


class AdminInstanceSuspensionHandler(InstanceHandler):
    """The record changes at once, so that access ends or begins with the answer; an operation does the rest."""

    async def on_post(self, instance_id: str, action: str) -> Answer:
        instance = self.instance(instance_id)
        kind, suspension = OperationKind.UNSUSPEND, None
        if action == "suspend":
            kind, suspension = OperationKind.SUSPEND, Suspension(self.body["reason"], self.services.clock.now())
        operation = await self.services.provisioning.request(
            kind, instance, self.principal.user_id, reason=self.body.get("reason")
        )
        instance = await self.services.instances.set_suspension(instance.id, suspension)
        await self.audit(f"instance.{action}", instance.id, {**self.body, "operation": operation.id})
        return Answer(_admin_document(self, instance))


def _admin_document(handler: InstanceHandler, instance: Instance) -> bytes:
    return handler.services.instance_views.admin_document(instance)


class AdminUsersHandler(ApiHandler):
    async def on_get(self) -> Answer:
        limit = self.query["limit"]
        users = await self.services.users.page(limit=limit + 1, after=self.query.get("after"))
        shown = users[:limit]
        return Answer(
            {
                "items": [user_document(user) for user in shown],
                "nextAfter": shown[-1].id if len(users) > limit else None,
            }
        )


class AdminUserHandler(ApiHandler):
    async def on_get(self, user_id: str) -> Answer:
        return Answer(user_document(_found(await self.services.users.get(user_id))))


class AdminUserSuspensionHandler(ApiHandler):
    async def on_post(self, user_id: str, action: str) -> Answer:
        if action == "suspend":
            if user_id == self.principal.user_id:
                raise Conflict("You cannot suspend yourself.", code="cannot_suspend_self")
            suspension = Suspension(self.body["reason"], self.services.clock.now())
            user = _found(await self.services.users.set_suspension(user_id, suspension))
            await self.services.sessions.logout_all(user_id)
        else:
            user = _found(await self.services.users.set_suspension(user_id, None))
        self.services.authenticator.evict_user(user_id)
        await self.audit(f"user.{action}", user_id, dict(self.body))
        return Answer(user_document(user))


def _found(user: User | None) -> User:
    if user is None:
        raise NotFound
    return user
