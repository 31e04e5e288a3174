"""Password resets, in `reset_tokens`: one document a user, so that a new token replaces the former atomically."""

from __future__ import annotations

from datetime import datetime

from pymongo.errors import DuplicateKeyError

from controlplane.errors import StorageUnavailable
from controlplane.models import ResetToken
from controlplane.storage.database import Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

_UPSERT_ATTEMPTS = 5


class MongoResetTokenRepository:
    """Satisfies `ports.ResetTokenRepository`."""

    def __init__(self, database: Database) -> None:
        self._tokens = database.collection("reset_tokens")

    async def replace_for_user(self, token: ResetToken) -> None:
        document = {
            "token_hash": exact(token.token_hash),
            "created_at": token.created_at,
            "expires_at": token.expires_at,
        }
        for _ in range(_UPSERT_ATTEMPTS):
            try:
                with translated():
                    await self._tokens.replace_one({"_id": exact(token.user_id)}, document, upsert=True)
            except DuplicateKeyError:
                continue  # two first tokens of one user at once: now there is a document to replace
            return
        raise StorageUnavailable("Too many resets of one account at once; try again.")

    async def consume(self, token_hash: str, now: datetime) -> ResetToken | None:
        with translated():
            row = await self._tokens.find_one_and_delete({"token_hash": exact(token_hash), "expires_at": {"$gt": now}})
        return _to_token(row)


def _to_token(row: Document | None) -> ResetToken | None:
    if row is None:
        return None
    return ResetToken(
        token_hash=row["token_hash"],
        user_id=row["_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
