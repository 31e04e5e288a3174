"""Long-lived credentials, in `api_keys`. Only the secret's hash is stored, unique by index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pymongo import DESCENDING
from pymongo.errors import DuplicateKeyError

from controlplane.errors import Conflict
from controlplane.models import ApiKey
from controlplane.storage.database import Database, Document, find_by_ids, read_all
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

TOUCH_INTERVAL = timedelta(minutes=1)


class MongoApiKeyRepository:
    """Satisfies `ports.ApiKeyRepository`."""

    def __init__(self, database: Database) -> None:
        self._keys = database.collection("api_keys")
        self._uses = database.collection("api_keys", durable=False)

    async def add(self, key: ApiKey) -> None:
        """Raises Conflict when the id or the secret is in use."""
        try:
            with translated():
                await self._keys.insert_one(_to_document(key))
        except DuplicateKeyError as error:
            raise Conflict("An API key with this id or secret exists.") from error

    async def get_many(self, key_ids: Sequence[str]) -> dict[str, ApiKey]:
        return {key_id: key async for key_id, key in find_by_ids(self._keys, key_ids, _to_key)}

    async def find_by_hash(self, secret_hash: str) -> ApiKey | None:
        with translated():
            row = await self._keys.find_one({"secret_hash": exact(secret_hash)})
        return None if row is None else _to_key(row)

    async def list_active(self, user_id: str, now: datetime) -> list[ApiKey]:
        """Not revoked and not expired, newest first."""
        active = {
            "user_id": exact(user_id),
            "revoked_at": None,
            "$or": [{"expires_at": None}, {"expires_at": {"$gt": now}}],
        }
        newest_first = [("created_at", DESCENDING), ("_id", DESCENDING)]
        return await read_all(self._keys.find(active).sort(newest_first), _to_key)

    async def revoke(self, key_id: str, *, user_id: str, at: datetime) -> bool:
        """True when this call revoked it; False when it is another user's, missing, or was revoked already."""
        with translated():
            result = await self._keys.update_one(
                {"_id": exact(key_id), "user_id": exact(user_id), "revoked_at": None}, {"$set": {"revoked_at": at}}
            )
        return result.matched_count == 1

    async def touch(self, key_id: str, at: datetime) -> None:
        not_lately = [{"last_used_at": None}, {"last_used_at": {"$lte": at - TOUCH_INTERVAL}}]
        with translated():
            await self._uses.update_one({"_id": exact(key_id), "$or": not_lately}, {"$set": {"last_used_at": at}})


def _to_document(key: ApiKey) -> Document:
    return {
        "_id": key.id,
        "user_id": key.user_id,
        "name": key.name,
        "secret_hash": key.secret_hash,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }


def _to_key(row: Document) -> ApiKey:
    return ApiKey(
        id=row["_id"],
        user_id=row["user_id"],
        name=row["name"],
        secret_hash=row["secret_hash"],
        scopes=frozenset(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
    )
