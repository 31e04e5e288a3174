"""Answers under idempotency keys, in `idempotency`, removed by a TTL index after a day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pymongo.errors import DuplicateKeyError

from controlplane.errors import Conflict
from controlplane.models import StoredAnswer
from controlplane.storage.database import Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

# Three renewals were missed: the process that claimed the key must have died.
ABANDONED_AFTER = timedelta(seconds=35)
_CLAIM_ATTEMPTS = 5


class MongoIdempotencyRepository:
    """Satisfies `ports.IdempotencyRepository`. `scope` and `key` together are the id."""

    def __init__(self, database: Database) -> None:
        self._answers = database.collection("idempotency")

    async def begin(self, scope: str, key: str, request_hash: str, *, now: datetime) -> StoredAnswer | None:
        claim = {
            "_id": _id(scope, key),
            "request_hash": exact(request_hash),
            "started_at": now,
            "renewed_at": now,
            "status": None,
        }
        for _ in range(_CLAIM_ATTEMPTS):
            try:
                with translated():
                    await self._answers.insert_one(claim)
            except DuplicateKeyError:
                with translated():
                    row = await self._answers.find_one({"_id": claim["_id"]})
                if row is None:
                    continue  # given up by the first in between
                return await self._join(row, request_hash, now)
            return None
        raise _in_progress()

    async def _join(self, row: Document, request_hash: str, now: datetime) -> StoredAnswer | None:
        if row["request_hash"] != request_hash:
            raise Conflict("This idempotency key was used for another request.", code="idempotency_key_reused")
        if row["status"] is not None:
            return StoredAnswer(row["request_hash"], row["status"], bytes(row["sealed_body"]))
        if row["renewed_at"] > now - ABANDONED_AFTER:
            raise _in_progress()
        with translated():
            taken_over = await self._answers.update_one(
                {"_id": row["_id"], "status": None, "renewed_at": row["renewed_at"]}, {"$set": {"renewed_at": now}}
            )
        if taken_over.matched_count != 1:
            raise _in_progress()
        return None

    async def renew(self, claims: Sequence[tuple[str, str]], *, now: datetime) -> None:
        with translated():
            await self._answers.update_many(
                {"_id": {"$in": [_id(scope, key) for scope, key in claims]}, "status": None},
                {"$set": {"renewed_at": now}},
            )

    async def finish(self, scope: str, key: str, answer: StoredAnswer, *, now: datetime) -> None:
        finished = {
            "request_hash": exact(answer.request_hash),
            "status": answer.status,
            "sealed_body": answer.sealed_body,
            "finished_at": now,
        }
        with translated():
            await self._answers.update_one(
                {"_id": _id(scope, key)}, {"$set": finished, "$setOnInsert": {"started_at": now}}, upsert=True
            )

    async def abandon(self, scope: str, key: str) -> None:
        with translated():
            await self._answers.delete_one({"_id": _id(scope, key), "status": None})


def _id(scope: str, key: str) -> str:
    """The scope's length tells where it ends: no key can reach into another scope."""
    return f"{len(scope)}:{exact(scope)}:{exact(key)}"


def _in_progress() -> Conflict:
    return Conflict("The first request with this idempotency key still runs.", code="idempotency_in_progress")
