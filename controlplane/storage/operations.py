"""Operations, in `operations`, each with the lease of its runner.

`renewed_at` and `written_at` are set by the server, whose clock also decides whether a lease has ended: a date is made
a number before it is compared with `$$NOW`, for the reason told in `leases`. Who has not the runner and the fence of
the latest claim cannot write.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, NoReturn

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from controlplane.errors import Conflict, StaleRevision
from controlplane.models import (
    InstanceKind,
    MachineAddress,
    Operation,
    OperationError,
    OperationKind,
    Phase,
    StepRecord,
    StepState,
)
from controlplane.storage.database import Database, Document, read_all
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated
from controlplane.storage.instances import OVERLAP

_LEASE_HAS_ENDED = {
    "$lte": [
        {"$add": [{"$toLong": {"$ifNull": ["$renewed_at", datetime(1970, 1, 1)]}}, "$lease_ms"]},  # noqa: DTZ001 - BSON's UTC
        {"$toLong": "$$NOW"},
    ]
}
_STAMPS = {"written_at": True, "renewed_at": True}
_UPSERT_ATTEMPTS = 5


class MongoOperationRepository:
    """Satisfies `ports.OperationRepository`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._operations = database.collection("operations")
        self._meta = database.collection("meta")

    async def deployment_id(self) -> str:
        for _ in range(_UPSERT_ATTEMPTS):
            with translated():
                row = await self._meta.find_one({"_id": "deployment"})
            if row is not None:
                return str(row["name"])
            try:
                with translated():
                    await self._meta.insert_one({"_id": "deployment", "name": secrets.token_hex(3)})
            except DuplicateKeyError:
                continue  # another process was first
        raise Conflict("Others are naming this database at the same time; try again.")

    # -- making and reading ------------------------------------------------------------------------------------------

    async def add(self, operation: Operation) -> None:
        # An upsert rather than an insert, since `$currentDate` belongs to updates (see `instances`).
        try:
            with translated():
                await self._operations.update_one(
                    {"_id": exact(operation.id), "revision": {"$exists": False}},
                    {"$set": {**_to_document(operation), "lease_ms": 0}, "$currentDate": _STAMPS},
                    upsert=True,
                )
        except DuplicateKeyError as error:
            _raise_conflict(error)

    async def get(self, operation_id: str) -> Operation | None:
        return await self._find_one({"_id": exact(operation_id)})

    async def find_by_key(self, key: str) -> Operation | None:
        return await self._find_one({"key": exact(key), "is_keyed": True})

    async def find_active(self, instance_id: str) -> Operation | None:
        return await self._find_one({"instance_id": exact(instance_id), "is_finished": False})

    async def list_active(self) -> list[Operation]:
        return await read_all(self._operations.find({"is_finished": False}), _to_operation)

    async def has_deleted(self, instance_id: str) -> bool:
        deleted = {"instance_id": exact(instance_id), "phase": Phase.DELETED.value}
        return await self._find_one(deleted) is not None

    async def page(
        self, *, owner_id: str | None, phases: Sequence[Phase] | None, limit: int, after: str | None
    ) -> list[Operation]:
        wanted: Document = {}
        if owner_id is not None:
            wanted["owner_id"] = exact(owner_id)
        if phases is not None:
            wanted["phase"] = {"$in": [phase.value for phase in phases]}
        if after is not None:
            wanted["_id"] = {"$lt": exact(after)}
        return await read_all(self._operations.find(wanted).sort("_id", -1).limit(limit), _to_operation)

    async def list_unfinished_of(self, owner_id: str) -> list[Operation]:
        wanted = {"owner_id": exact(owner_id), "is_finished": False}
        return await read_all(self._operations.find(wanted), _to_operation)

    async def changed_since(self, since: datetime) -> tuple[list[Operation], datetime]:
        now = await self._database.server_now()
        written = {"written_at": {"$gte": since - OVERLAP}}
        return await read_all(self._operations.find(written), _to_operation), now

    async def server_now(self) -> datetime:
        return await self._database.server_now()

    async def _find_one(self, wanted: Document) -> Operation | None:
        with translated():
            row = await self._operations.find_one(wanted)
        return None if row is None else _to_operation(row)

    # -- under a lease -----------------------------------------------------------------------------------------------

    async def list_due(self, now: datetime, *, provider: str | None, limit: int) -> list[str]:
        due = {
            "is_finished": False,
            "due_at": {"$lte": now},
            "provider": {"$in": [None, provider]},
            "$or": [{"runner": None}, {"$expr": _LEASE_HAS_ENDED}],
        }
        cursor = self._operations.find(due, {"_id": 1}).sort("due_at", 1).limit(limit)
        return await read_all(cursor, lambda row: str(row["_id"]))

    async def claim(self, operation_id: str, runner: str, *, lease_seconds: float) -> Operation | None:
        free = {
            "_id": exact(operation_id),
            "is_finished": False,
            "$or": [{"runner": None}, {"$expr": _LEASE_HAS_ENDED}],
        }
        return await self._change(
            free,
            {
                "$set": {"runner": exact(runner), "lease_ms": int(lease_seconds * 1000)},
                "$inc": {"fence": 1, "revision": 1},
                "$currentDate": _STAMPS,
            },
        )

    async def renew(self, operation: Operation) -> Operation | None:
        return await self._change(_held(operation), {"$currentDate": {"renewed_at": True}})

    async def save(self, operation: Operation) -> Operation:
        stored = replace(operation, revision=operation.revision + 1)
        held = {**_held(operation), "revision": exact(operation.revision)}
        return await self._store(held, stored)

    async def release(self, operation: Operation) -> None:
        with translated():
            await self._operations.update_one(_held(operation), {"$set": {"runner": None}})

    async def request_cancel(self, operation_id: str, phases: Sequence[Phase]) -> Operation | None:
        return await self._change(
            {"_id": exact(operation_id), "phase": {"$in": [phase.value for phase in phases]}},
            {
                "$set": {"is_cancel_requested": True},
                "$inc": {"revision": 1},
                "$currentDate": {"written_at": True},
            },
        )

    async def amend(self, operation: Operation) -> Operation:
        stored = replace(operation, revision=operation.revision + 1, runner=None)
        return await self._store({"_id": exact(operation.id), "revision": exact(operation.revision)}, stored)

    async def _store(self, wanted: Document, stored: Operation) -> Operation:
        try:
            with translated():
                result = await self._operations.update_one(
                    wanted, {"$set": _to_document(stored), "$currentDate": _STAMPS}
                )
        except DuplicateKeyError as error:
            _raise_conflict(error)
        if result.matched_count != 1:
            raise StaleRevision("Another writer was first.")
        return stored

    async def _change(self, wanted: Document, change: Document) -> Operation | None:
        with translated():
            row = await self._operations.find_one_and_update(wanted, change, return_document=ReturnDocument.AFTER)
        return None if not row else _to_operation(row)


def _held(operation: Operation) -> Document:
    return {"_id": exact(operation.id), "runner": exact(operation.runner or ""), "fence": exact(operation.fence)}


def _raise_conflict(error: DuplicateKeyError) -> NoReturn:
    pattern = (error.details or {}).get("keyPattern", {})
    if "key" in pattern:
        raise Conflict("This key belongs to another operation.", code="operation_key_taken") from error
    if "instance_id" in pattern:
        raise Conflict("Another operation on this instance is under way.", code="operation_in_progress") from error
    raise Conflict("An operation with this id exists.") from error


# -- as documents ------------------------------------------------------------------------------------------------------


def _to_document(operation: Operation) -> Document:
    """Without `_id`, the stamps and the lease's length. `is_finished` and `is_keyed` are there for the indexes."""
    return {
        "kind": operation.kind.value,
        "phase": operation.phase.value,
        "is_finished": operation.is_finished,
        "instance_id": operation.instance_id,
        "instance_kind": operation.instance_kind.value,
        "owner_id": operation.owner_id,
        "requested_by": operation.requested_by,
        "name": operation.name,
        "created_at": operation.created_at,
        "updated_at": operation.updated_at,
        "due_at": operation.due_at,
        "plan": operation.plan,
        "provider": operation.provider,
        "mark": operation.mark,
        "vmid": operation.vmid,
        "sealed_token": operation.sealed_token,
        "address": _from_address(operation.address),
        "reason": operation.reason,
        "key": operation.key,
        "is_keyed": operation.key is not None,
        "request_hash": operation.request_hash,
        "steps": [_from_step(step) for step in operation.steps],
        "error": _from_error(operation.error),
        "left_behind": list(operation.left_behind),
        "is_cancel_requested": operation.is_cancel_requested,
        "finished_at": operation.finished_at,
        "revision": operation.revision,
        "fence": operation.fence,
        "runner": operation.runner,
    }


def _to_operation(row: Document) -> Operation:
    return Operation(
        id=row["_id"],
        kind=OperationKind(row["kind"]),
        phase=Phase(row["phase"]),
        instance_id=row["instance_id"],
        instance_kind=InstanceKind(row["instance_kind"]),
        owner_id=row["owner_id"],
        requested_by=row["requested_by"],
        name=row["name"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        due_at=row["due_at"],
        plan=row["plan"],
        provider=row["provider"],
        mark=row["mark"],
        vmid=row["vmid"],
        sealed_token=None if row["sealed_token"] is None else bytes(row["sealed_token"]),
        address=None if row["address"] is None else MachineAddress(**row["address"]),
        reason=row["reason"],
        key=row["key"],
        request_hash=row["request_hash"],
        steps=tuple(_to_step(step) for step in row["steps"]),
        error=_to_error(row["error"]),
        left_behind=tuple(row["left_behind"]),
        is_cancel_requested=row["is_cancel_requested"],
        finished_at=row["finished_at"],
        revision=row["revision"],
        fence=row["fence"],
        runner=row["runner"],
    )


def _from_address(address: MachineAddress | None) -> Document | None:
    if address is None:
        return None
    document: Document = asdict(address)
    return document


def _from_step(step: StepRecord) -> Document:
    return {
        "phase": step.phase.value,
        "state": step.state.value,
        "attempts": step.attempts,
        "started_at": step.started_at,
        "ended_at": step.ended_at,
        "error": _from_error(step.error),
    }


def _to_step(row: Document) -> StepRecord:
    return StepRecord(
        phase=Phase(row["phase"]),
        state=StepState(row["state"]),
        attempts=row["attempts"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        error=_to_error(row["error"]),
    )


def _from_error(error: OperationError | None) -> Document | None:
    if error is None:
        return None
    return {
        "phase": error.phase.value,
        "code": error.code,
        "message": error.message,
        "operator_message": error.operator_message,
    }


def _to_error(row: dict[str, Any] | None) -> OperationError | None:
    if row is None:
        return None
    return OperationError(Phase(row["phase"]), row["code"], row["message"], row["operator_message"])
