"""Accounts, in `users`. The email is unique by index; the password changes by compare-and-set on its old hash."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from controlplane.errors import Conflict
from controlplane.models import Role, Suspension, User
from controlplane.storage.database import Database, Document, find_by_ids, read_all
from controlplane.storage.documents import exact, from_suspension, to_suspension
from controlplane.storage.failures import translated


class MongoUserRepository:
    """Satisfies `ports.UserRepository`."""

    def __init__(self, database: Database) -> None:
        self._users = database.collection("users")

    async def add(self, user: User) -> None:
        try:
            with translated():
                await self._users.insert_one(_to_document(user))
        except DuplicateKeyError as error:
            if "email" in (error.details or {}).get("keyPattern", {}):
                raise Conflict("This email is in use.", code="email_taken") from error
            raise Conflict("A user with this id exists.") from error

    async def get(self, user_id: str) -> User | None:
        with translated():
            row = await self._users.find_one({"_id": exact(user_id)})
        return _to_user_or_none(row)

    async def get_many(self, user_ids: Sequence[str]) -> dict[str, User]:
        return {user_id: user async for user_id, user in find_by_ids(self._users, user_ids, _to_user)}

    async def find_by_email(self, email: str) -> User | None:
        with translated():
            row = await self._users.find_one({"email": exact(email)})
        return _to_user_or_none(row)

    async def set_password(self, user_id: str, *, expected_hash: str, new_hash: str, at: datetime) -> bool:
        with translated():
            result = await self._users.update_one(
                {"_id": exact(user_id), "password_hash": exact(expected_hash)},
                {"$set": {"password_hash": exact(new_hash), "password_changed_at": at}},
            )
        return result.matched_count == 1

    async def set_suspension(self, user_id: str, suspension: Suspension | None) -> User | None:
        with translated():
            row = await self._users.find_one_and_update(
                {"_id": exact(user_id)},
                {"$set": {"suspension": from_suspension(suspension)}},
                return_document=ReturnDocument.AFTER,
            )
        return _to_user_or_none(row)

    async def page(self, *, limit: int, after: str | None) -> list[User]:
        if limit < 1:  # to MongoDB, 0 means without a limit
            return []
        behind = {} if after is None else {"_id": {"$gt": exact(after)}}
        return await read_all(self._users.find(behind).sort("_id", ASCENDING).limit(limit), _to_user)

    async def count(self, *, role: Role) -> int:
        with translated():
            return await self._users.count_documents({"role": role.value})


def _to_document(user: User) -> Document:
    return {
        "_id": user.id,
        "email": exact(user.email),
        "password_hash": user.password_hash,
        "role": user.role.value,
        "created_at": user.created_at,
        "password_changed_at": user.password_changed_at,
        "suspension": from_suspension(user.suspension),
    }


def _to_user_or_none(row: Document | None) -> User | None:
    return None if row is None else _to_user(row)


def _to_user(row: Document) -> User:
    return User(
        id=row["_id"],
        email=row["email"],
        password_hash=row["password_hash"],
        role=Role(row["role"]),
        created_at=row["created_at"],
        password_changed_at=row["password_changed_at"],
        suspension=to_suspension(row["suspension"]),
    )
