"""Which hosts of the static pool are taken, in `static_hosts`: the host's name is the id, so one claim can hold it."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from controlplane.errors import Conflict
from controlplane.models import StaticClaim
from controlplane.storage.database import Database, Document, read_all
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated


class MongoStaticClaimRepository:
    """Satisfies `ports.StaticClaimRepository`. A host that was given back keeps its row, for its generation."""

    def __init__(self, database: Database) -> None:
        self._hosts = database.collection("static_hosts")

    async def claim(self, host: str, generation: int, vmid: int, operation_id: str) -> bool:
        taken = {
            "generation": generation,
            "is_taken": True,
            "vmid": vmid,
            "operation_id": operation_id,
            "is_started": False,
        }
        is_clean = {"_id": exact(host), "is_taken": False, "generation": {"$lt": exact(generation)}}
        try:
            with translated():
                if (await self._hosts.update_one(is_clean, {"$set": taken})).matched_count:
                    return True
                await self._hosts.insert_one({"_id": exact(host), **taken})
        except DuplicateKeyError as error:
            if await self.find(vmid) is not None:
                raise Conflict("Another host has this vmid.", code="vmid_taken") from error
            return False
        return True

    async def find(self, vmid: int) -> StaticClaim | None:
        with translated():
            row = await self._hosts.find_one({"vmid": exact(vmid), "is_taken": True})
        return None if row is None else _to_claim(row)

    async def load_all(self) -> list[StaticClaim]:
        return await read_all(self._hosts.find({"is_taken": True}), _to_claim)

    async def set_started(self, vmid: int, operation_id: str, *, is_started: bool) -> None:
        mine = {"vmid": exact(vmid), "operation_id": exact(operation_id), "is_taken": True}
        with translated():
            await self._hosts.update_one(mine, {"$set": {"is_started": is_started}})

    async def release(self, vmid: int, operation_id: str) -> None:
        mine = {"vmid": exact(vmid), "operation_id": exact(operation_id), "is_taken": True}
        with translated():
            await self._hosts.update_one(mine, {"$set": {"is_taken": False, "is_started": False}})


def _to_claim(row: Document) -> StaticClaim:
    return StaticClaim(row["_id"], int(row["vmid"]), row["operation_id"], bool(row["is_started"]))
