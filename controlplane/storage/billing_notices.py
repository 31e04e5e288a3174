"""Notices to customers, in `billing_notices`, by what they are about: each is inserted once and sent by one process.

The server's clock decides when the right to send ends (see `leases`).
"""

from __future__ import annotations

from datetime import datetime

from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from controlplane.billing.accounts import Notice, NoticeKind
from controlplane.storage.database import Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

_SERVER_MILLISECONDS = {"$toLong": "$$NOW"}
_MAY_BE_CLAIMED = {"open": True, "$expr": {"$lte": ["$lease_ms", _SERVER_MILLISECONDS]}}


class MongoNoticeRepository:
    """Satisfies `billing.ports.NoticeRepository`."""

    def __init__(self, database: Database) -> None:
        self._notices = database.collection("billing_notices")

    async def add(self, notice: Notice) -> bool:
        document = {
            "_id": exact(notice.id),
            "user_id": exact(notice.user_id),
            "kind": notice.kind.value,
            "created_at": notice.created_at,
            "facts": dict(notice.facts),
            "attempts": 0,
            "sent_at": None,
            "open": True,
            "owner": None,
            "lease_ms": 0,
        }
        try:
            with translated():
                await self._notices.insert_one(document)
        except DuplicateKeyError:
            return False
        return True

    async def get(self, notice_id: str) -> Notice | None:
        with translated():
            row = await self._notices.find_one({"_id": exact(notice_id)})
        return None if row is None else _to_notice(row)

    async def claim(self, notice_id: str, owner: str, *, lease_seconds: float) -> Notice | None:
        taken = {
            "owner": {"$literal": exact(owner)},
            "attempts": {"$add": ["$attempts", 1]},
            "lease_ms": {"$add": [_SERVER_MILLISECONDS, int(lease_seconds * 1000)]},
        }
        with translated():
            row = await self._notices.find_one_and_update(
                {"_id": exact(notice_id), **_MAY_BE_CLAIMED}, [{"$set": taken}], return_document=ReturnDocument.AFTER
            )
        return _to_notice(row) if row else None

    async def mark_sent(self, notice_id: str, owner: str, at: datetime) -> None:
        with translated():
            await self._notices.update_one(
                {"_id": exact(notice_id), "owner": exact(owner)}, {"$set": {"sent_at": at, "open": False}}
            )

    async def give_up(self, notice_id: str, owner: str) -> None:
        with translated():
            await self._notices.update_one({"_id": exact(notice_id), "owner": exact(owner)}, {"$set": {"open": False}})

    async def give_back(self, notice_id: str, owner: str, *, retry_seconds: float) -> None:
        free = {"lease_ms": {"$add": [_SERVER_MILLISECONDS, int(retry_seconds * 1000)]}, "owner": None}
        with translated():
            await self._notices.update_one(
                {"_id": exact(notice_id), "owner": exact(owner), "open": True}, [{"$set": free}]
            )

    async def unsent(self, *, limit: int) -> list[str]:
        with translated():
            rows = (
                await self._notices.find(_MAY_BE_CLAIMED, {"_id": 1})
                .sort("created_at", ASCENDING)
                .limit(limit)
                .to_list(limit)
            )
        return [row["_id"] for row in rows]


def _to_notice(row: Document) -> Notice:
    return Notice(
        id=row["_id"],
        user_id=row["user_id"],
        kind=NoticeKind(row["kind"]),
        created_at=row["created_at"],
        facts=row["facts"],
        attempts=row["attempts"],
        sent_at=row["sent_at"],
    )
