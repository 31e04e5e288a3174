"""The backup routes. A long operation goes on to its end when the caller stops waiting for the answer."""

from __future__ import annotations

from typing import Any

from controlplane.refagent.backups import Backups, valid_name
from controlplane.refagent.faults import AgentFault
from controlplane.refagent.http import Guarded


class BackupList(Guarded):
    def initialize(self, backups: Backups) -> None:
        self._backups = backups

    async def get(self) -> None:
        self.reply({"backups": await self._backups.listed()})

    async def post(self) -> None:
        body: dict[str, Any] = self.json_object() if self.request.body else {}
        unknown = sorted(set(body) - {"name"})
        if unknown:
            raise AgentFault(422, "validation_failed", f"Unknown keys: {', '.join(unknown)[:200]}.")
        self.reply(await self._backups.create(valid_name(body.get("name"))), 201)


class BackupRestore(Guarded):
    def initialize(self, backups: Backups) -> None:
        self._backups = backups

    async def post(self) -> None:
        self.reply({"restored": await self._backups.restore(self.one_query_value("id"))})


class OneBackup(Guarded):
    def initialize(self, backups: Backups) -> None:
        self._backups = backups

    async def delete(self, backup_id: str) -> None:
        await self._backups.delete(backup_id)
        self.reply({"deleted": backup_id})
