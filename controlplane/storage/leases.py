"""Exclusive rights with an end, in `leases`. The server's clock decides, and the fence never goes back.

Times are milliseconds since 1970 as numbers: SecantusDB compares a stored date with `$$NOW` wrongly (it finds neither
greater), and as numbers both servers agree. A lease that was released keeps its document, for the fence.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from controlplane.errors import StorageUnavailable
from controlplane.models import Lease
from controlplane.storage.database import Database
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

_UPSERT_ATTEMPTS = 5
_SERVER_MILLISECONDS = {"$toLong": "$$NOW"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MongoLeaseRepository:
    """Satisfies `ports.LeaseRepository`."""

    def __init__(self, database: Database) -> None:
        self._leases = database.collection("leases")

    async def acquire(self, name: str, owner: str, *, ttl_seconds: float) -> Lease | None:
        # One pipeline decides and writes; a filter could not, as MongoDB takes no `$expr` in that of an upsert.
        is_alive = {"$gt": [{"$ifNull": ["$expires_ms", 0]}, _SERVER_MILLISECONDS]}
        is_mine = {"$eq": [{"$ifNull": ["$owner", ""]}, {"$literal": exact(owner)}]}
        fence = {"$ifNull": ["$fence", 0]}
        taken = {
            "_id": {"$literal": exact(name)},
            "owner": {"$literal": owner},
            "fence": {"$cond": [{"$and": [is_alive, is_mine]}, fence, {"$add": [fence, 1]}]},
            "expires_ms": {"$add": [_SERVER_MILLISECONDS, int(ttl_seconds * 1000)]},
        }
        is_anothers = {"$and": [is_alive, {"$not": [is_mine]}]}
        decide = [{"$replaceWith": {"$cond": [is_anothers, "$$ROOT", taken]}}]
        for _ in range(_UPSERT_ATTEMPTS):
            try:
                with translated():
                    row = await self._leases.find_one_and_update(
                        {"_id": name}, decide, upsert=True, return_document=ReturnDocument.AFTER
                    )
            except DuplicateKeyError:
                continue  # made by another at this moment: now there is a document to decide on
            if not row:
                continue  # SecantusDB's answer to an upsert that met another's
            if row["owner"] != owner:
                return None
            return Lease(name, owner, int(row["fence"]), _EPOCH + timedelta(milliseconds=row["expires_ms"]))
        raise StorageUnavailable("Too many want a new lease at once; try again.")

    async def release(self, name: str, owner: str) -> None:
        with translated():
            await self._leases.update_one({"_id": exact(name), "owner": exact(owner)}, {"$set": {"expires_ms": 0}})

    async def is_current(self, name: str, owner: str, fence: int) -> bool:
        held = {
            "_id": exact(name),
            "owner": exact(owner),
            "fence": exact(fence),
            "$expr": {"$gt": ["$expires_ms", _SERVER_MILLISECONDS]},
        }
        with translated():
            return await self._leases.find_one(held) is not None
