"""The audit trail, in `audit`: appended to, never changed."""

from __future__ import annotations

from controlplane.models import AuditEntry
from controlplane.storage.database import Database
from controlplane.storage.documents import from_detail
from controlplane.storage.failures import translated


class MongoAuditRepository:
    """Satisfies `ports.AuditRepository`."""

    def __init__(self, database: Database) -> None:
        self._entries = database.collection("audit")

    async def add(self, entry: AuditEntry) -> None:
        document = {
            "at": entry.at,
            "actor_id": entry.actor_id,
            "action": entry.action,
            "subject": entry.subject,
            "request_id": entry.request_id,
            "address": entry.address,
            "detail": from_detail(entry.detail),
        }
        with translated():
            await self._entries.insert_one(document)
