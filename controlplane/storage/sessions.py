"""Logins, in `sessions`, and the refresh tokens that each family ever had, in `refresh_hashes`.

Only hashes are stored. Both are removed by TTL indexes a while after they expire.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from pymongo import DESCENDING
from pymongo.errors import DuplicateKeyError

from controlplane.errors import Conflict
from controlplane.models import Session
from controlplane.storage.database import Database, Document, find_by_ids, read_all
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated


class MongoSessionRepository:
    """Satisfies `ports.SessionRepository`."""

    def __init__(self, database: Database) -> None:
        self._sessions = database.collection("sessions")
        self._hashes = database.collection("refresh_hashes")

    async def add(self, session: Session) -> None:
        """Raises Conflict when the id is in use."""
        try:
            with translated():
                await self._sessions.insert_one(_to_document(session))
        except DuplicateKeyError as error:
            raise Conflict("A session with this id exists.") from error

    async def get(self, session_id: str) -> Session | None:
        with translated():
            row = await self._sessions.find_one({"_id": exact(session_id)})
        return None if row is None else _to_session(row)

    async def get_many(self, session_ids: Sequence[str]) -> dict[str, Session]:
        return {found: session async for found, session in find_by_ids(self._sessions, session_ids, _to_session)}

    async def list_active(self, user_id: str, now: datetime) -> list[Session]:
        active = {"user_id": exact(user_id), "revoked_at": None, "expires_at": {"$gt": now}}
        newest_first = [("created_at", DESCENDING), ("_id", DESCENDING)]
        return await read_all(self._sessions.find(active).sort(newest_first), _to_session)

    async def remember_refresh_hash(self, refresh_hash: str, session_id: str, expires_at: datetime) -> None:
        with translated():
            await self._hashes.update_one(
                {"_id": exact(refresh_hash)},
                {"$set": {"session_id": exact(session_id), "expires_at": expires_at}},
                upsert=True,
            )

    async def find_session_id_by_refresh_hash(self, refresh_hash: str) -> str | None:
        with translated():
            row = await self._hashes.find_one({"_id": exact(refresh_hash)})
        return None if row is None else str(row["session_id"])

    async def rotate(self, session_id: str, *, expected_hash: str, new_hash: str, at: datetime) -> bool:
        with translated():
            result = await self._sessions.update_one(
                {"_id": exact(session_id), "refresh_hash": exact(expected_hash), "revoked_at": None},
                {
                    "$set": {
                        "refresh_hash": exact(new_hash),
                        "previous_refresh_hash": expected_hash,
                        "rotated_at": at,
                        "last_used_at": at,
                    }
                },
            )
        return result.matched_count == 1

    async def revoke(self, session_id: str, *, at: datetime, reason: str) -> bool:
        with translated():
            result = await self._sessions.update_one(
                {"_id": exact(session_id), "revoked_at": None},
                {"$set": {"revoked_at": at, "revoked_reason": reason}},
            )
        return result.matched_count == 1

    async def revoke_all(
        self, user_id: str, *, at: datetime, reason: str, except_session_id: str | None = None
    ) -> list[str]:
        mark = secrets.token_hex(16)  # tells what this call revoked from what another did at the same moment
        active: Document = {"user_id": exact(user_id), "revoked_at": None, "expires_at": {"$gt": at}}
        if except_session_id is not None:
            active["_id"] = {"$ne": exact(except_session_id)}
        revocation = {"revoked_at": at, "revoked_reason": reason, "revocation": mark}
        with translated():
            await self._sessions.update_many(active, {"$set": revocation})
        revoked = self._sessions.find({"user_id": user_id, "revocation": mark}, {"_id": True})
        return await read_all(revoked, lambda row: str(row["_id"]))


def _to_document(session: Session) -> Document:
    return {
        "_id": session.id,
        "user_id": session.user_id,
        "refresh_hash": session.refresh_hash,
        "previous_refresh_hash": session.previous_refresh_hash,
        "created_at": session.created_at,
        "last_used_at": session.last_used_at,
        "rotated_at": session.rotated_at,
        "expires_at": session.expires_at,
        "user_agent": session.user_agent,
        "address": session.address,
        "revoked_at": session.revoked_at,
        "revoked_reason": session.revoked_reason,
    }


def _to_session(row: Document) -> Session:
    return Session(
        id=row["_id"],
        user_id=row["user_id"],
        refresh_hash=row["refresh_hash"],
        previous_refresh_hash=row["previous_refresh_hash"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        rotated_at=row["rotated_at"],
        expires_at=row["expires_at"],
        user_agent=row["user_agent"],
        address=row["address"],
        revoked_at=row["revoked_at"],
        revoked_reason=row["revoked_reason"],
    )
