"""Instances, in `instances`. A live one's vmid, and its address with port, are unique by partial index.

`written_at` is set by the server, so that `changed_since` needs no agreement on time between processes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NoReturn

from pymongo.errors import DuplicateKeyError

from controlplane.errors import Conflict, StaleRevision
from controlplane.models import Instance, InstanceKind
from controlplane.storage.database import Database, Document, read_all
from controlplane.storage.documents import exact, from_suspension, to_suspension
from controlplane.storage.failures import translated

OVERLAP = timedelta(seconds=5)  # a write is stamped before it can be seen


class MongoInstanceRepository:
    """Satisfies `ports.InstanceRepository`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._instances = database.collection("instances")

    async def add(self, instance: Instance) -> None:
        # An upsert rather than an insert, since `$currentDate` belongs to updates. Where the id exists, the filter does
        # not match and the insert that is tried then fails on `_id`.
        try:
            with translated():
                await self._instances.update_one(
                    {"_id": exact(instance.id), "revision": {"$exists": False}},
                    {"$set": _to_document(instance), "$currentDate": {"written_at": True}},
                    upsert=True,
                )
        except DuplicateKeyError as error:
            _raise_conflict(error)

    async def get(self, instance_id: str) -> Instance | None:
        with translated():
            row = await self._instances.find_one({"_id": exact(instance_id)})
        return None if row is None else _to_instance(row)

    async def replace(self, instance: Instance, *, expected_revision: int) -> None:
        if instance.revision != expected_revision + 1:
            raise ValueError(f"revision {instance.revision} does not follow {expected_revision}")
        try:
            with translated():
                result = await self._instances.update_one(
                    {"_id": exact(instance.id), "revision": exact(expected_revision)},
                    {"$set": _to_document(instance), "$currentDate": {"written_at": True}},
                )
        except DuplicateKeyError as error:
            _raise_conflict(error)
        if result.matched_count != 1:
            raise StaleRevision("Another writer was first.")

    async def load_all(self) -> tuple[list[Instance], datetime]:
        now = await self._database.server_now()
        return await read_all(self._instances.find({"deleted": False}), _to_instance), now

    async def changed_since(self, since: datetime) -> tuple[list[Instance], datetime]:
        now = await self._database.server_now()
        written = {"written_at": {"$gte": since - OVERLAP}}
        return await read_all(self._instances.find(written), _to_instance), now

    async def live_ids_of(self, owner_id: str, kind: InstanceKind) -> set[str]:
        owned = {"owner_id": exact(owner_id), "kind": kind.value, "deleted": False}
        return set(await read_all(self._instances.find(owned, {"_id": 1}), lambda row: str(row["_id"])))

    async def has_machine(self, operation_id: str) -> bool:
        made_by = {"operation_id": exact(operation_id), "deleted": False}
        with translated():
            return await self._instances.find_one(made_by, {"_id": 1}) is not None


def _raise_conflict(error: DuplicateKeyError) -> NoReturn:
    pattern = (error.details or {}).get("keyPattern", {})
    if "vmid" in pattern:
        raise Conflict("Another instance has this vmid.", code="vmid_taken") from error
    if "address" in pattern:
        raise Conflict("Another instance has this address and port.", code="address_taken") from error
    raise Conflict("An instance with this id exists.") from error


def _to_document(instance: Instance) -> Document:
    """Without `_id` and `written_at`. `deleted` is there for the partial indexes."""
    return {
        "kind": instance.kind.value,
        "vmid": instance.vmid,
        "name": instance.name,
        "owner_id": instance.owner_id,
        "address": instance.address,
        "port": instance.port,
        "https": instance.https,
        "ide_port": instance.ide_port,
        "game_port": instance.game_port,
        "published": instance.published,
        "sealed_token": instance.sealed_token,
        "created_at": instance.created_at,
        "suspension": from_suspension(instance.suspension),
        "revision": instance.revision,
        "deleted": instance.deleted_at is not None,
        "deleted_at": instance.deleted_at,
        "provider": instance.provider,
        "operation_id": instance.operation_id,
        "memory_mib": instance.memory_mib,
    }


def _to_instance(row: Document) -> Instance:
    return Instance(
        id=row["_id"],
        kind=InstanceKind(row["kind"]),
        vmid=row["vmid"],
        name=row["name"],
        owner_id=row["owner_id"],
        address=row["address"],
        port=row["port"],
        https=row["https"],
        ide_port=row["ide_port"],
        sealed_token=bytes(row["sealed_token"]),
        created_at=row["created_at"],
        suspension=to_suspension(row["suspension"]),
        revision=row["revision"],
        deleted_at=row["deleted_at"],
        # Not in records of earlier versions.
        game_port=row.get("game_port"),
        published=row.get("published", True),
        provider=row.get("provider"),
        operation_id=row.get("operation_id"),
        memory_mib=row.get("memory_mib"),
    )
