"""API keys: the unique secret, revocation by the owner, the coarse note of use."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.errors import Conflict
from controlplane.models import ApiKey
from controlplane.storage.api_keys import MongoApiKeyRepository
from controlplane.storage.database import Database
from tests.contract.storage.moments import NOW


def key(number: int = 1, **changes: Any) -> ApiKey:
    plain = ApiKey(
        id=f"key_{number}",
        user_id="usr_1",
        name="deploys",
        secret_hash=f"hash-{number}",
        scopes=frozenset({"instances:read", "instances:control"}),
        created_at=NOW + timedelta(seconds=number),
        expires_at=None,
    )
    return replace(plain, **changes)


@pytest.fixture
def keys(database: Database) -> MongoApiKeyRepository:
    return MongoApiKeyRepository(database)


@pytest.mark.gen_test
async def test_a_key_is_found_by_its_secrets_hash(keys: MongoApiKeyRepository) -> None:
    stored = key(expires_at=NOW + timedelta(days=1), last_used_at=NOW, revoked_at=NOW)
    await keys.add(stored)
    assert await keys.find_by_hash("hash-1") == stored
    assert await keys.find_by_hash("hash-2") is None
    assert await keys.get_many(["key_1", "key_2"]) == {"key_1": stored}


@pytest.mark.gen_test
async def test_a_secret_in_use_is_a_conflict(keys: MongoApiKeyRepository) -> None:
    await keys.add(key(1))
    with pytest.raises(Conflict):
        await keys.add(key(2, secret_hash="hash-1"))


@pytest.mark.gen_test
async def test_revoked_and_expired_keys_are_not_listed(keys: MongoApiKeyRepository) -> None:
    await keys.add(key(1))
    await keys.add(key(2, expires_at=NOW + timedelta(seconds=1)))
    await keys.add(key(3, expires_at=NOW))
    await keys.add(key(4, revoked_at=NOW))
    await keys.add(key(5, user_id="usr_2"))
    assert [each.id for each in await keys.list_active("usr_1", NOW)] == ["key_2", "key_1"]


@pytest.mark.gen_test
async def test_only_its_owner_revokes_a_key_and_only_once(keys: MongoApiKeyRepository) -> None:
    await keys.add(key())
    assert not await keys.revoke("key_1", user_id="usr_2", at=NOW)
    assert await keys.revoke("key_1", user_id="usr_1", at=NOW)
    assert not await keys.revoke("key_1", user_id="usr_1", at=NOW)


@pytest.mark.gen_test
async def test_use_is_noted_at_most_once_a_minute(keys: MongoApiKeyRepository) -> None:
    await keys.add(key())
    noted = []
    for seconds in (0, 30, 59, 60, 90):
        await keys.touch("key_1", NOW + timedelta(seconds=seconds))
        found = await keys.find_by_hash("hash-1")
        assert found is not None
        assert found.last_used_at is not None
        noted.append((found.last_used_at - NOW).total_seconds())
    assert noted == [0, 0, 0, 60, 60]
