"""Vmids promised to operations, in `vmids`: the vmid is the id, so that the database lets one holder have it.

A cursor goes round the range: a vmid that was just given back, or that somebody else's machine has, comes last.
"""

from __future__ import annotations

from collections.abc import Callable

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from controlplane.errors import StorageUnavailable
from controlplane.storage.database import Database, read_all
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

_CURSOR = "cursor"
_UPSERT_ATTEMPTS = 5


class MongoVmidReservations:
    """Satisfies `ports.VmidReservations`."""

    def __init__(self, database: Database) -> None:
        self._vmids = database.collection("vmids")

    async def reserve(self, operation_id: str, first: int, last: int, is_taken: Callable[[int], bool]) -> int | None:
        with translated():
            held = await self._vmids.find_one({"operation_id": exact(operation_id)})
        if held is not None:
            return int(held["_id"])
        size = last - first + 1
        for _ in range(size):
            vmid = first + await self._next() % size
            if is_taken(vmid):
                continue
            try:
                with translated():
                    await self._vmids.insert_one({"_id": vmid, "operation_id": exact(operation_id)})
            except DuplicateKeyError:
                continue
            return vmid
        return None

    async def _next(self) -> int:
        for _ in range(_UPSERT_ATTEMPTS):
            try:
                with translated():
                    row = await self._vmids.find_one_and_update(
                        {"_id": _CURSOR}, {"$inc": {"next": 1}}, upsert=True, return_document=ReturnDocument.AFTER
                    )
            except DuplicateKeyError:
                continue  # made by another at this moment
            if row:
                return int(row["next"]) - 1
        raise StorageUnavailable("Too many want a vmid at once; try again.")

    async def release(self, operation_id: str) -> None:
        with translated():
            await self._vmids.delete_many({"operation_id": exact(operation_id)})

    async def holders(self) -> dict[int, str]:
        cursor = self._vmids.find({"operation_id": {"$exists": True}})
        return dict(await read_all(cursor, lambda row: (int(row["_id"]), str(row["operation_id"]))))
