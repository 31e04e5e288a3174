"""Events of the payment provider, in `billing_inbox`, by their id: each is taken up by one process at a time.

The server's clock decides when a lease ends, as milliseconds (see `leases`). What is old is removed by a TTL index,
long after the provider has stopped sending it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from controlplane.billing.accounts import InboxEntry, InboxState
from controlplane.storage.database import IN_VALUES_AT_ONCE, Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

_SERVER_MILLISECONDS = {"$toLong": "$$NOW"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPEN = {"$in": [InboxState.RECEIVED.value, InboxState.PROCESSING.value, InboxState.FAILED.value]}
_REASON_CHARACTERS = 500


class MongoInboxRepository:
    """Satisfies `billing.ports.InboxRepository`. `due_ms` is when a job may take it up, `lease_ms` when anybody may."""

    def __init__(self, database: Database) -> None:
        self._inbox = database.collection("billing_inbox")

    async def receive(self, entry: InboxEntry) -> bool:
        try:
            with translated():
                await self._inbox.update_one(
                    {"_id": exact(entry.id), "state": {"$exists": False}},
                    [{"$set": {**_literals(entry), "due_ms": _SERVER_MILLISECONDS, "lease_ms": 0}}],
                    upsert=True,
                )
        except DuplicateKeyError:
            return False
        return True

    async def get(self, event_id: str) -> InboxEntry | None:
        with translated():
            row = await self._inbox.find_one({"_id": exact(event_id)})
        return None if row is None else _to_entry(row)

    async def known(self, event_ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(event_ids), IN_VALUES_AT_ONCE):
            some = [exact(each) for each in event_ids[start : start + IN_VALUES_AT_ONCE]]
            with translated():
                rows = await self._inbox.find({"_id": {"$in": some}}, {"_id": 1}).to_list(None)
            found.update(row["_id"] for row in rows)
        return found

    async def claim(self, event_id: str, owner: str, *, lease_seconds: float) -> InboxEntry | None:
        until = {"$add": [_SERVER_MILLISECONDS, int(lease_seconds * 1000)]}
        with translated():
            row = await self._inbox.find_one_and_update(
                {
                    "_id": exact(event_id),
                    "state": _OPEN,
                    "$expr": {"$lte": ["$lease_ms", _SERVER_MILLISECONDS]},
                },
                [
                    {
                        "$set": {
                            "state": InboxState.PROCESSING.value,
                            "owner": {"$literal": exact(owner)},
                            "attempts": {"$add": ["$attempts", 1]},
                            "lease_ms": until,
                            "due_ms": until,
                        }
                    }
                ],
                return_document=ReturnDocument.AFTER,
            )
        return _to_entry(row) if row else None

    async def finish(self, event_id: str, owner: str, outcome: str) -> None:
        with translated():
            await self._inbox.update_one(
                _held(event_id, owner),
                {"$set": {"state": InboxState.DONE.value, "outcome": outcome[:_REASON_CHARACTERS], "lease_ms": 0}},
            )

    async def fail(self, event_id: str, owner: str, reason: str, *, retry_seconds: float) -> None:
        due = {"$add": [_SERVER_MILLISECONDS, int(retry_seconds * 1000)]}
        with translated():
            await self._inbox.update_one(
                _held(event_id, owner),
                [
                    {
                        "$set": {
                            "state": InboxState.FAILED.value,
                            "outcome": {"$literal": reason[:_REASON_CHARACTERS]},
                            "lease_ms": 0,
                            "due_ms": due,
                        }
                    }
                ],
            )

    async def left_over(self, *, idle_seconds: float, limit: int) -> list[str]:
        idle = {"$subtract": [_SERVER_MILLISECONDS, int(idle_seconds * 1000)]}
        waited = {"$cond": [{"$eq": ["$state", InboxState.RECEIVED.value]}, idle, _SERVER_MILLISECONDS]}
        with translated():
            rows = (
                await self._inbox.find({"state": _OPEN, "$expr": {"$lte": ["$due_ms", waited]}}, {"_id": 1})
                .sort("received_at", ASCENDING)
                .limit(limit)
                .to_list(limit)
            )
        return [row["_id"] for row in rows]


def _held(event_id: str, owner: str) -> Document:
    return {"_id": exact(event_id), "state": InboxState.PROCESSING.value, "owner": exact(owner)}


def _literals(entry: InboxEntry) -> Document:
    """For a pipeline, in which text that begins with `$` would be a path."""
    fields = {
        "type": entry.type,
        "created_at": entry.created_at,
        "received_at": entry.received_at,
        "source": entry.source,
        "object_id": entry.object_id,
        "customer_id": entry.customer_id,
        "subscription_id": entry.subscription_id,
        "invoice_id": entry.invoice_id,
        "checkout_id": entry.checkout_id,
        "user_id": entry.user_id,
        "state": entry.state.value,
        "attempts": 0,
        "outcome": entry.outcome,
    }
    return {name: {"$literal": value} for name, value in fields.items()}


def _to_entry(row: Document) -> InboxEntry:
    lease = row["lease_ms"]
    return InboxEntry(
        id=row["_id"],
        type=row["type"],
        created_at=row["created_at"],
        received_at=row["received_at"],
        source=row["source"],
        object_id=row["object_id"],
        customer_id=row["customer_id"],
        subscription_id=row["subscription_id"],
        invoice_id=row["invoice_id"],
        checkout_id=row["checkout_id"],
        user_id=row["user_id"],
        state=InboxState(row["state"]),
        attempts=row["attempts"],
        lease_until=_EPOCH + timedelta(milliseconds=lease) if lease else None,
        outcome=row["outcome"],
    )
