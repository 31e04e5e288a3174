"""What opens IDEs, in the database: tokens are taken once, sessions move on, both go with their instance."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.models import IdeMode, IdeSession, IdeToken, Principal, Role
from controlplane.storage.database import Database
from controlplane.storage.ide import MongoIdeSessionRepository, MongoIdeTokenRepository

NOW = datetime(2099, 1, 1, tzinfo=UTC)
ADA = Principal("usr_1", "ada@example.org", Role.CUSTOMER, "ses_1")
KEY = Principal("usr_1", "ada@example.org", Role.ADMIN, None, "key_1", frozenset({"instances:ide"}))


def token(name: str, principal: Principal = ADA, *, instance_id: str = "dev_1", seconds: int = 60) -> IdeToken:
    return IdeToken(name, principal, instance_id, "usr_1", IdeMode.HOST, NOW + timedelta(seconds=seconds))


def session(name: str, principal: Principal = ADA, *, instance_id: str = "dev_1") -> IdeSession:
    ends_at = NOW + timedelta(hours=2)
    return IdeSession(name, principal, instance_id, "usr_1", IdeMode.PATH, NOW, NOW + timedelta(hours=1), ends_at)


@pytest.mark.gen_test
async def test_a_token_is_taken_by_exactly_one_of_many(database: Database) -> None:
    tokens = MongoIdeTokenRepository(database)
    await tokens.add(token("a", KEY))
    taken = await asyncio.gather(*(tokens.consume("a", NOW) for _ in range(20)))
    assert [each for each in taken if each is not None] == [token("a", KEY)]


@pytest.mark.gen_test
async def test_a_token_that_has_expired_is_none(database: Database) -> None:
    tokens = MongoIdeTokenRepository(database)
    await tokens.add(token("a", seconds=1))
    assert await tokens.consume("a", NOW + timedelta(seconds=1)) is None
    assert await tokens.consume("b", NOW) is None


@pytest.mark.gen_test
async def test_sessions_are_read_as_they_were_stored(database: Database) -> None:
    sessions = MongoIdeSessionRepository(database)
    kept = {name: session(name, KEY if name == "s7" else ADA) for name in (f"s{number}" for number in range(120))}
    for each in kept.values():
        await sessions.add(each)
    assert await sessions.get_many([*kept, "missing"]) == kept
    assert await sessions.get_many([]) == {}


@pytest.mark.gen_test
async def test_the_idle_end_moves_on_and_never_back(database: Database) -> None:
    sessions = MongoIdeSessionRepository(database)
    await sessions.add(session("a"))
    await sessions.add(session("b"))
    later = NOW + timedelta(hours=3)
    await sessions.extend(["a", "gone"], later)
    await sessions.extend(["a"], NOW)
    found = await sessions.get_many(["a", "b", "gone"])
    assert {name: each.idle_until for name, each in found.items()} == {"a": later, "b": NOW + timedelta(hours=1)}


@pytest.mark.gen_test
async def test_what_opens_an_instance_goes_with_it(database: Database) -> None:
    tokens, sessions = MongoIdeTokenRepository(database), MongoIdeSessionRepository(database)
    for instance_id in ("dev_1", "dev_2"):
        await tokens.add(token(f"t_{instance_id}", instance_id=instance_id))
        await sessions.add(session(f"s_{instance_id}", instance_id=instance_id))
    await sessions.remove_of_instance("dev_1")
    assert set(await sessions.get_many(["s_dev_1", "s_dev_2"])) == {"s_dev_2"}
    assert await tokens.consume("t_dev_1", NOW) is None
    assert await tokens.consume("t_dev_2", NOW) is not None
