"""The last known state of each agent, in `agent_states`: a cache that outlives the process, written fast, not durably.

Who polls holds a lease; its fence is kept in each row, so that a poller whose lease has passed to another cannot
overwrite what the other has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError

from controlplane.errors import StorageUnavailable
from controlplane.models import AgentState, Connection, Process, Readiness
from controlplane.storage.database import BATCH_ROWS, IN_VALUES_AT_ONCE, Database, Document, read_all
from controlplane.storage.documents import exact, from_detail, to_detail
from controlplane.storage.failures import translated
from controlplane.storage.instances import OVERLAP

_UPSERT_ATTEMPTS = 3
BULK_SECONDS = 30.0  # thousands of rows take longer than one operation may


class MongoAgentStateRepository:
    """Satisfies `ports.AgentStateRepository`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._states = database.collection("agent_states", durable=False)

    async def load_all(self) -> list[AgentState]:
        return await read_all(self._states.find({}), _to_state)

    async def save_many(self, states: Sequence[AgentState], *, fence: int) -> None:
        for start in range(0, len(states), BATCH_ROWS):
            await self._save(states[start : start + BATCH_ROWS], fence)

    async def _save(self, states: Sequence[AgentState], fence: int) -> None:
        updates = await asyncio.to_thread(_upserts, states, exact(fence))
        for _ in range(_UPSERT_ATTEMPTS):
            try:
                with translated(), self._database.deadline(BULK_SECONDS):
                    await self._states.bulk_write(updates, ordered=False)
            except BulkWriteError:
                continue  # rows made by another at this moment: now they are there to decide on
            return
        raise StorageUnavailable("Too many save the same agents' states at once; try again.")

    async def touch_observed(self, instance_ids: Sequence[str], observed_at: datetime, *, fence: int) -> None:
        if not instance_ids:
            return
        seen = {"observed_at": observed_at, "last_seen_at": observed_at}
        updates = [
            UpdateMany(
                {
                    "_id": {"$in": list(instance_ids[start : start + IN_VALUES_AT_ONCE])},
                    "fence": {"$lte": exact(fence)},
                },
                {"$max": seen, "$currentDate": {"written_at": True}},
            )
            for start in range(0, len(instance_ids), IN_VALUES_AT_ONCE)
        ]
        with translated(), self._database.deadline(BULK_SECONDS):
            await self._states.bulk_write(updates, ordered=False)

    async def changed_since(self, since: datetime | None) -> tuple[list[AgentState], datetime]:
        now = await self._database.server_now()
        written = {} if since is None else {"written_at": {"$gte": since - OVERLAP}}
        return await read_all(self._states.find(written), _to_state), now

    async def remove(self, instance_id: str) -> None:
        with translated():
            await self._states.delete_one({"_id": exact(instance_id)})


def _upserts(states: Sequence[AgentState], fence: int) -> list[UpdateOne]:
    """In a pipeline, since only there can a row be left alone by what it holds and still be made when it is missing."""
    return [
        UpdateOne({"_id": exact(state.instance_id)}, _unless_fenced_off(state, fence), upsert=True) for state in states
    ]


def _unless_fenced_off(state: AgentState, fence: int) -> list[dict[str, Any]]:
    row = {"$mergeObjects": [{"$literal": _to_document(state, fence)}, {"written_at": "$$NOW"}]}
    is_newer = {"$gt": [{"$ifNull": ["$fence", -1]}, fence]}
    return [{"$replaceWith": {"$cond": [is_newer, "$$ROOT", row]}}]


def _to_document(state: AgentState, fence: int) -> Document:
    return {
        "_id": state.instance_id,
        "connection": state.connection.value,
        "readiness": state.readiness.value,
        "ready": state.ready,
        "process": state.process.value,
        "healthy": state.healthy,
        "reason": state.reason,
        "message": state.message,
        "confirmed": state.confirmed,
        "consecutive_failures": state.consecutive_failures,
        "observed_at": state.observed_at,
        "first_seen_at": state.first_seen_at,
        "last_seen_at": state.last_seen_at,
        "last_ready_at": state.last_ready_at,
        "changed_at": state.changed_at,
        "revision": state.revision,
        "detail": from_detail(state.detail),
        "fence": fence,
    }


def _to_state(row: Document) -> AgentState:
    return AgentState(
        instance_id=row["_id"],
        connection=Connection(row["connection"]),
        readiness=Readiness(row["readiness"]),
        ready=row["ready"],
        process=Process(row["process"]),
        healthy=row["healthy"],
        reason=row["reason"],
        message=row["message"],
        confirmed=row["confirmed"],
        consecutive_failures=row["consecutive_failures"],
        observed_at=row["observed_at"],
        first_seen_at=row["first_seen_at"],
        last_seen_at=row["last_seen_at"],
        last_ready_at=row["last_ready_at"],
        changed_at=row["changed_at"],
        revision=row["revision"],
        detail=to_detail(row["detail"]),
    )
