"""Backups of game servers: forwarded as they are, or normalized on request."""

from __future__ import annotations

from controlplane.backups import normalize_backups
from controlplane.models import Instance, InstanceKind
from handlers.base import Answer
from handlers.instances import InstanceHandler, forwarded


class BackupHandler(InstanceHandler):
    kind = InstanceKind.GAME

    def usable(self, reference: str) -> Instance:
        return self.services.instances.find_usable(reference, self.principal, self.kind)


class BackupsHandler(BackupHandler):
    async def on_get(self, instance_id: str) -> Answer:
        instance = self.instance(instance_id)
        reply = await self.services.backups.list(instance, request_id=self.request_id)
        if self.query.get("view") == "normalized":
            return Answer(normalize_backups(reply.raw))
        return forwarded(reply)

    async def on_post(self, instance_id: str) -> Answer:
        instance = self.usable(instance_id)
        name = self.body.get("name")
        limit = await self.services.rights.backup_limit(self.principal, instance)
        await self.audit("instance.backup_create", instance.id, {"name": name})
        return forwarded(await self.services.backups.create(instance, name, limit=limit, request_id=self.request_id))


class BackupRestoreHandler(BackupHandler):
    async def on_post(self, instance_id: str) -> Answer:
        instance, backup_id = self.usable(instance_id), self.query["id"]
        await self.audit("instance.backup_restore", instance.id, {"backupId": backup_id})
        reply = await self.services.backups.restore(instance, backup_id, request_id=self.request_id)
        self.services.poller.poll_now(instance.id)
        return forwarded(reply)


class OneBackupHandler(BackupHandler):
    async def on_delete(self, instance_id: str, backup_id: str) -> Answer:
        instance = self.usable(instance_id)
        await self.audit("instance.backup_delete", instance.id, {"backupId": backup_id[:200]})
        return forwarded(await self.services.backups.delete(instance, backup_id, request_id=self.request_id))
