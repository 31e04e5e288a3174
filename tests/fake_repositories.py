"""In-memory repositories of accounts for unit tests. What holds under contention is shown in tests/contract/storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from controlplane.errors import Conflict, StaleRevision, StorageUnavailable
from controlplane.models import ApiKey, Instance, InstanceKind, ResetToken, Role, Session, Suspension, User


class _Reachable:
    """`is_away` makes every call fail as an unreachable database does."""

    def __init__(self) -> None:
        self.is_away = False

    def reach(self) -> None:
        if self.is_away:
            raise StorageUnavailable


class FakeUserRepository(_Reachable):
    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, User] = {}

    async def add(self, user: User) -> None:
        self.reach()
        if any(known.email == user.email for known in self.users.values()):
            raise Conflict("This email is in use.", code="email_taken")
        self.users[user.id] = user

    async def get(self, user_id: str) -> User | None:
        self.reach()
        return self.users.get(user_id)

    async def get_many(self, user_ids: Sequence[str]) -> dict[str, User]:
        self.reach()
        return {user_id: self.users[user_id] for user_id in user_ids if user_id in self.users}

    async def find_by_email(self, email: str) -> User | None:
        self.reach()
        return next((user for user in self.users.values() if user.email == email), None)

    async def set_password(self, user_id: str, *, expected_hash: str, new_hash: str, at: datetime) -> bool:
        self.reach()
        user = self.users[user_id]
        if user.password_hash != expected_hash:
            return False
        self.users[user_id] = replace(user, password_hash=new_hash, password_changed_at=at)
        return True

    async def set_suspension(self, user_id: str, suspension: Suspension | None) -> User | None:
        self.reach()
        if user_id not in self.users:
            return None
        self.users[user_id] = replace(self.users[user_id], suspension=suspension)
        return self.users[user_id]

    async def page(self, *, limit: int, after: str | None) -> list[User]:
        self.reach()
        return [self.users[key] for key in sorted(self.users) if after is None or key > after][:limit]

    async def count(self, *, role: Role) -> int:
        self.reach()
        return sum(user.role is role for user in self.users.values())


class FakeSessionRepository(_Reachable):
    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, Session] = {}
        self.families: dict[str, str] = {}
        self.reads = 0

    async def add(self, session: Session) -> None:
        self.reach()
        self.sessions[session.id] = session

    async def get(self, session_id: str) -> Session | None:
        self.reach()
        self.reads += 1
        return self.sessions.get(session_id)

    async def get_many(self, session_ids: Sequence[str]) -> dict[str, Session]:
        self.reach()
        return {each: self.sessions[each] for each in session_ids if each in self.sessions}

    async def list_active(self, user_id: str, now: datetime) -> list[Session]:
        self.reach()
        active = [each for each in self.sessions.values() if each.user_id == user_id and _is_active(each, now)]
        return sorted(active, key=lambda session: session.created_at, reverse=True)

    async def remember_refresh_hash(self, refresh_hash: str, session_id: str, expires_at: datetime) -> None:
        self.reach()
        self.families[refresh_hash] = session_id

    async def find_session_id_by_refresh_hash(self, refresh_hash: str) -> str | None:
        self.reach()
        return self.families.get(refresh_hash)

    async def rotate(self, session_id: str, *, expected_hash: str, new_hash: str, at: datetime) -> bool:
        self.reach()
        session = self.sessions[session_id]
        if session.refresh_hash != expected_hash or session.revoked_at is not None:
            return False
        self.sessions[session_id] = replace(
            session, refresh_hash=new_hash, previous_refresh_hash=expected_hash, rotated_at=at, last_used_at=at
        )
        return True

    async def revoke(self, session_id: str, *, at: datetime, reason: str) -> bool:
        self.reach()
        session = self.sessions.get(session_id)
        if session is None or session.revoked_at is not None:
            return False
        self.sessions[session_id] = replace(session, revoked_at=at, revoked_reason=reason)
        return True

    async def revoke_all(
        self, user_id: str, *, at: datetime, reason: str, except_session_id: str | None = None
    ) -> list[str]:
        self.reach()
        ids = [each.id for each in self.sessions.values() if each.user_id == user_id and each.id != except_session_id]
        return [session_id for session_id in ids if await self.revoke(session_id, at=at, reason=reason)]


class FakeApiKeyRepository(_Reachable):
    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, ApiKey] = {}
        self.touches = 0

    async def add(self, key: ApiKey) -> None:
        self.reach()
        self.keys[key.id] = key

    async def get_many(self, key_ids: Sequence[str]) -> dict[str, ApiKey]:
        self.reach()
        return {each: self.keys[each] for each in key_ids if each in self.keys}

    async def find_by_hash(self, secret_hash: str) -> ApiKey | None:
        self.reach()
        return next((key for key in self.keys.values() if key.secret_hash == secret_hash), None)

    async def list_active(self, user_id: str, now: datetime) -> list[ApiKey]:
        self.reach()
        return [
            key
            for key in self.keys.values()
            if key.user_id == user_id and key.revoked_at is None and (key.expires_at is None or key.expires_at > now)
        ]

    async def revoke(self, key_id: str, *, user_id: str, at: datetime) -> bool:
        self.reach()
        key = self.keys.get(key_id)
        if key is None or key.user_id != user_id or key.revoked_at is not None:
            return False
        self.keys[key_id] = replace(key, revoked_at=at)
        return True

    async def touch(self, key_id: str, at: datetime) -> None:
        self.reach()
        self.touches += 1
        self.keys[key_id] = replace(self.keys[key_id], last_used_at=at)


class FakeResetTokenRepository(_Reachable):
    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, ResetToken] = {}

    async def replace_for_user(self, token: ResetToken) -> None:
        self.reach()
        self.tokens = {key: each for key, each in self.tokens.items() if each.user_id != token.user_id}
        self.tokens[token.token_hash] = token

    async def consume(self, token_hash: str, now: datetime) -> ResetToken | None:
        self.reach()
        token = self.tokens.pop(token_hash, None)
        return token if token is not None and token.expires_at > now else None


class FakeInstanceRepository(_Reachable):
    def __init__(self) -> None:
        super().__init__()
        self.instances: dict[str, Instance] = {}
        self.changed: list[str] = []

    async def add(self, instance: Instance) -> None:
        self.reach()
        if any(each.vmid == instance.vmid and each.deleted_at is None for each in self.instances.values()):
            raise Conflict("This vmid is in use.", code="vmid_taken")
        self.instances[instance.id] = instance
        self.changed.append(instance.id)

    async def get(self, instance_id: str) -> Instance | None:
        self.reach()
        return self.instances.get(instance_id)

    async def replace(self, instance: Instance, *, expected_revision: int) -> None:
        self.reach()
        if self.instances[instance.id].revision != expected_revision:
            raise StaleRevision("Another writer was first.")
        self.instances[instance.id] = instance
        self.changed.append(instance.id)

    async def load_all(self) -> tuple[list[Instance], datetime]:
        self.reach()
        return [each for each in self.instances.values() if each.deleted_at is None], _EPOCH

    async def changed_since(self, since: datetime) -> tuple[list[Instance], datetime]:
        self.reach()
        return [self.instances[instance_id] for instance_id in self.changed], _EPOCH

    async def live_ids_of(self, owner_id: str, kind: InstanceKind) -> set[str]:
        self.reach()
        return {
            each.id
            for each in self.instances.values()
            if each.owner_id == owner_id and each.kind is kind and each.deleted_at is None
        }

    async def has_machine(self, operation_id: str) -> bool:
        self.reach()
        return any(each.operation_id == operation_id and each.deleted_at is None for each in self.instances.values())


_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def _is_active(session: Session, now: datetime) -> bool:
    return session.revoked_at is None and session.expires_at > now
