"""Sessions: rotation by compare-and-set, revocation, the memory of every refresh token."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.errors import Conflict
from controlplane.models import Session
from controlplane.storage.database import Database
from controlplane.storage.sessions import MongoSessionRepository
from tests.contract.storage.moments import NOW


def session(number: int = 1, **changes: Any) -> Session:
    plain = Session(
        id=f"ses_{number:03}",
        user_id="usr_1",
        refresh_hash=f"hash-{number}",
        created_at=NOW + timedelta(seconds=number),
        last_used_at=NOW,
        expires_at=NOW + timedelta(days=30),
        user_agent="Browser/1.0",
        address="192.0.2.7",
    )
    return replace(plain, **changes)


@pytest.fixture
def sessions(database: Database) -> MongoSessionRepository:
    return MongoSessionRepository(database)


@pytest.mark.gen_test
async def test_a_session_comes_back_as_it_was_stored(sessions: MongoSessionRepository) -> None:
    stored = session(
        previous_refresh_hash="before", rotated_at=NOW, revoked_at=NOW + timedelta(hours=1), revoked_reason="logout"
    )
    await sessions.add(stored)
    assert await sessions.get(stored.id) == stored
    assert await sessions.get_many([stored.id, "ses_none"]) == {stored.id: stored}
    assert await sessions.get("ses_none") is None


@pytest.mark.gen_test
async def test_an_id_in_use_is_a_conflict(sessions: MongoSessionRepository) -> None:
    await sessions.add(session())
    with pytest.raises(Conflict):
        await sessions.add(session(refresh_hash="another"))
    assert await sessions.get("ses_001") == session()


@pytest.mark.gen_test
async def test_exactly_one_of_many_racers_rotates(sessions: MongoSessionRepository) -> None:
    await sessions.add(session())
    at = NOW + timedelta(minutes=5)
    racers = [
        sessions.rotate("ses_001", expected_hash="hash-1", new_hash=f"next-{number}", at=at) for number in range(40)
    ]
    results = await asyncio.gather(*racers)
    assert results.count(True) == 1
    rotated = await sessions.get("ses_001")
    assert rotated == session(
        refresh_hash=f"next-{results.index(True)}", previous_refresh_hash="hash-1", rotated_at=at, last_used_at=at
    )


@pytest.mark.gen_test
async def test_a_revoked_session_does_not_rotate(sessions: MongoSessionRepository) -> None:
    await sessions.add(session())
    assert await sessions.revoke("ses_001", at=NOW, reason="logout")
    assert not await sessions.rotate("ses_001", expected_hash="hash-1", new_hash="next", at=NOW)


@pytest.mark.gen_test
async def test_exactly_one_of_many_racers_revokes(sessions: MongoSessionRepository) -> None:
    await sessions.add(session())
    racers = [sessions.revoke("ses_001", at=NOW, reason=f"reason-{number}") for number in range(30)]
    results = await asyncio.gather(*racers)
    assert results.count(True) == 1
    revoked = await sessions.get("ses_001")
    assert revoked is not None
    assert revoked.revoked_reason == f"reason-{results.index(True)}"
    assert not await sessions.revoke("ses_none", at=NOW, reason="logout")


@pytest.mark.gen_test
async def test_active_sessions_are_listed_newest_first(sessions: MongoSessionRepository) -> None:
    await sessions.add(session(1))
    await sessions.add(session(2))
    await sessions.add(session(3, revoked_at=NOW))
    await sessions.add(session(4, expires_at=NOW))
    await sessions.add(session(5, user_id="usr_2"))
    assert await sessions.list_active("usr_1", NOW) == [session(2), session(1)]


@pytest.mark.gen_test
async def test_revoking_all_tells_which_and_spares_one(sessions: MongoSessionRepository) -> None:
    for number in range(1, 5):
        await sessions.add(session(number))
    await sessions.add(session(5, user_id="usr_2"))
    await sessions.revoke("ses_002", at=NOW, reason="logout")
    revoked = await sessions.revoke_all("usr_1", at=NOW, reason="password_changed", except_session_id="ses_003")
    assert sorted(revoked) == ["ses_001", "ses_004"]
    assert [each.id for each in await sessions.list_active("usr_1", NOW)] == ["ses_003"]
    assert [each.id for each in await sessions.list_active("usr_2", NOW)] == ["ses_005"]
    assert await sessions.revoke_all("usr_3", at=NOW, reason="password_changed") == []


@pytest.mark.gen_test
async def test_revoking_all_at_once_reports_each_session_once(sessions: MongoSessionRepository) -> None:
    for number in range(20):
        await sessions.add(session(number))
    results = await asyncio.gather(*(sessions.revoke_all("usr_1", at=NOW, reason="all") for _ in range(8)))
    assert sorted(each for result in results for each in result) == [f"ses_{number:03}" for number in range(20)]


@pytest.mark.gen_test
async def test_every_refresh_token_of_a_family_is_remembered(sessions: MongoSessionRepository) -> None:
    expires = NOW + timedelta(days=30)
    for number in range(3):
        await sessions.remember_refresh_hash(f"hash-{number}", "ses_001", expires)
        await sessions.remember_refresh_hash(f"hash-{number}", "ses_001", expires)
    for number in range(3):
        assert await sessions.find_session_id_by_refresh_hash(f"hash-{number}") == "ses_001"
    assert await sessions.find_session_id_by_refresh_hash("hash-9") is None
