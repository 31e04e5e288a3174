"""What opens IDEs: one-time tokens in `ide_tokens` and cookies' sessions in `ide_sessions`, each by the hash of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from controlplane.models import IdeMode, IdeSession, IdeToken
from controlplane.storage.database import Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated
from controlplane.storage.principals import principal_fields, to_principal

_BATCH = 50  # a large $in is slow in the embedded store


class MongoIdeTokenRepository:
    """Satisfies `ports.IdeTokenRepository`."""

    def __init__(self, database: Database) -> None:
        self._tokens = database.collection("ide_tokens")

    async def add(self, token: IdeToken) -> None:
        with translated():
            await self._tokens.insert_one(
                {"_id": exact(token.token_hash), **_shared_fields(token), "expires_at": token.expires_at}
            )

    async def consume(self, token_hash: str, now: datetime) -> IdeToken | None:
        with translated():
            row: Document | None = await self._tokens.find_one_and_delete(
                {"_id": exact(token_hash), "expires_at": {"$gt": now}}
            )
        if row is None:
            return None
        return IdeToken(
            token_hash=row["_id"],
            principal=to_principal(row),
            instance_id=row["instance_id"],
            owner_id=row["owner_id"],
            mode=IdeMode(row["mode"]),
            expires_at=row["expires_at"],
        )


class MongoIdeSessionRepository:
    """Satisfies `ports.IdeSessionRepository`."""

    def __init__(self, database: Database) -> None:
        self._sessions = database.collection("ide_sessions")
        self._tokens = database.collection("ide_tokens")

    async def add(self, session: IdeSession) -> None:
        with translated():
            await self._sessions.insert_one(
                {
                    "_id": exact(session.cookie_hash),
                    **_shared_fields(session),
                    "created_at": session.created_at,
                    "idle_until": session.idle_until,
                    "ends_at": session.ends_at,
                }
            )

    async def get_many(self, cookie_hashes: Sequence[str]) -> dict[str, IdeSession]:
        found: dict[str, IdeSession] = {}
        for start in range(0, len(cookie_hashes), _BATCH):
            batch = [exact(each) for each in cookie_hashes[start : start + _BATCH]]
            with translated():
                async for row in self._sessions.find({"_id": {"$in": batch}}):
                    found[row["_id"]] = _to_session(row)
        return found

    async def extend(self, cookie_hashes: Sequence[str], idle_until: datetime) -> None:
        for start in range(0, len(cookie_hashes), _BATCH):
            batch = [exact(each) for each in cookie_hashes[start : start + _BATCH]]
            with translated():
                await self._sessions.update_many({"_id": {"$in": batch}}, {"$max": {"idle_until": idle_until}})

    async def remove_of_instance(self, instance_id: str) -> None:
        with translated():
            await self._tokens.delete_many({"instance_id": exact(instance_id)})
            await self._sessions.delete_many({"instance_id": exact(instance_id)})


def _shared_fields(opened: IdeToken | IdeSession) -> dict[str, Any]:
    return {
        **principal_fields(opened.principal),
        "instance_id": opened.instance_id,
        "owner_id": opened.owner_id,
        "mode": opened.mode.value,
    }


def _to_session(row: Document) -> IdeSession:
    return IdeSession(
        cookie_hash=row["_id"],
        principal=to_principal(row),
        instance_id=row["instance_id"],
        owner_id=row["owner_id"],
        mode=IdeMode(row["mode"]),
        created_at=row["created_at"],
        idle_until=row["idle_until"],
        ends_at=row["ends_at"],
    )
