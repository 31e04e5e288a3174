"""Password resets: one token a user, taken once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from controlplane.models import ResetToken
from controlplane.storage.database import Database
from controlplane.storage.reset_tokens import MongoResetTokenRepository
from tests.contract.storage.moments import NOW


def token(name: str = "hash", user_id: str = "usr_1") -> ResetToken:
    return ResetToken(name, user_id, NOW, NOW + timedelta(minutes=30))


@pytest.fixture
def tokens(database: Database) -> MongoResetTokenRepository:
    return MongoResetTokenRepository(database)


@pytest.mark.gen_test
async def test_one_of_many_racers_consumes_a_token(tokens: MongoResetTokenRepository) -> None:
    await tokens.replace_for_user(token())
    results = await asyncio.gather(*(tokens.consume("hash", NOW) for _ in range(40)))
    assert [result for result in results if result is not None] == [token()]


@pytest.mark.gen_test
async def test_an_expired_token_is_not_consumed(tokens: MongoResetTokenRepository) -> None:
    await tokens.replace_for_user(token())
    assert await tokens.consume("hash", NOW + timedelta(minutes=30)) is None


@pytest.mark.gen_test
async def test_a_new_token_invalidates_the_users_former_ones_only(tokens: MongoResetTokenRepository) -> None:
    await tokens.replace_for_user(token("other", "usr_2"))
    await tokens.replace_for_user(token("first"))
    await tokens.replace_for_user(token("second"))
    assert await tokens.consume("first", NOW) is None
    assert await tokens.consume("second", NOW) == token("second")
    assert await tokens.consume("other", NOW) == token("other", "usr_2")


@pytest.mark.gen_test
async def test_of_many_new_tokens_at_once_one_remains(tokens: MongoResetTokenRepository) -> None:
    await asyncio.gather(*(tokens.replace_for_user(token(f"hash-{number}")) for number in range(30)))
    found = [await tokens.consume(f"hash-{number}", NOW) for number in range(30)]
    assert len([each for each in found if each is not None]) == 1
