"""API keys: long-lived credentials with scopes, for scripts. Shown once, hashed at rest, revocable."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from controlplane.auth.authenticator import API_KEY_PREFIX, Authenticator
from controlplane.auth.tokens import random_secret, secret_hash
from controlplane.errors import Conflict, Forbidden, InvalidInput, NotFound
from controlplane.models import ApiKey, Principal
from controlplane.ports import ApiKeyRepository, Clock

MAX_KEYS_PER_USER = 20


class Scope(StrEnum):
    """What a key may be allowed to do. Never more than its owner may."""

    INSTANCES_READ = "instances:read"
    INSTANCES_POWER = "instances:power"
    INSTANCES_CONSOLE = "instances:console"
    INSTANCES_FILES = "instances:files"
    INSTANCES_BACKUPS = "instances:backups"
    INSTANCES_PROVISION = "instances:provision"
    ACCOUNT_READ = "account:read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key and its secret, which is not stored."""

    key: ApiKey
    secret: str = field(repr=False)


class ApiKeyService:
    def __init__(
        self,
        *,
        api_keys: ApiKeyRepository,
        authenticator: Authenticator,
        clock: Clock,
        random_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._api_keys = api_keys
        self._authenticator = authenticator
        self._clock = clock
        self._random_id = random_id

    async def create(
        self, principal: Principal, name: str, scopes: Sequence[str], *, expires_in_days: int | None
    ) -> CreatedKey:
        """Raises InvalidInput for an unknown scope, Forbidden for one beyond the caller's role, Conflict
        (`too_many_api_keys`)."""
        known = {scope.value for scope in Scope}
        unknown = sorted(set(scopes) - known)
        if unknown:
            raise InvalidInput({"scopes": [f"{', '.join(unknown)}: not one of {', '.join(sorted(known))}"]})
        if Scope.ADMIN in scopes and not principal.is_admin:
            raise Forbidden("Only an administrator's key may have the scope admin.")
        now = self._clock.now()
        if len(await self._api_keys.list_active(principal.user_id, now)) >= MAX_KEYS_PER_USER:
            raise Conflict(f"An account may have {MAX_KEYS_PER_USER} API keys; revoke one.", code="too_many_api_keys")
        secret = API_KEY_PREFIX + random_secret()
        key = ApiKey(
            id=f"key_{self._random_id()}",
            user_id=principal.user_id,
            name=name,
            secret_hash=secret_hash(secret),
            scopes=frozenset(scopes),
            created_at=now,
            expires_at=None if expires_in_days is None else now + timedelta(days=expires_in_days),
        )
        await self._api_keys.add(key)
        return CreatedKey(key, secret)

    async def list_keys(self, user_id: str) -> list[ApiKey]:
        """Those that work, newest first."""
        return await self._api_keys.list_active(user_id, self._clock.now())

    async def revoke(self, user_id: str, key_id: str) -> None:
        """Raises NotFound alike for what is missing, revoked already or not the user's."""
        if not await self._api_keys.revoke(key_id, user_id=user_id, at=self._clock.now()):
            raise NotFound
        self._authenticator.evict_api_key(key_id)
