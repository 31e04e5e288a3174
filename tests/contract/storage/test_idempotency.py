"""Idempotency keys: one runs, the others wait, replay or are refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from controlplane.errors import Conflict
from controlplane.models import StoredAnswer
from controlplane.storage.database import Database
from controlplane.storage.idempotency import ABANDONED_AFTER, MongoIdempotencyRepository
from tests.contract.storage.moments import NOW

ANSWER = StoredAnswer("hash", 201, b"\x00sealed")


@pytest.fixture
def keys(database: Database) -> MongoIdempotencyRepository:
    return MongoIdempotencyRepository(database)


@pytest.mark.gen_test
async def test_one_of_many_racers_runs_and_the_others_are_told_to_wait(keys: MongoIdempotencyRepository) -> None:
    racers = [keys.begin("usr_1", "key", "hash", now=NOW) for _ in range(40)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert results.count(None) == 1
    assert {each.stable_code for each in results if isinstance(each, Conflict)} == {"idempotency_in_progress"}


@pytest.mark.gen_test
async def test_a_finished_request_is_replayed(keys: MongoIdempotencyRepository) -> None:
    await keys.begin("usr_1", "key", "hash", now=NOW)
    await keys.finish("usr_1", "key", ANSWER, now=NOW)
    assert await keys.begin("usr_1", "key", "hash", now=NOW) == ANSWER


@pytest.mark.gen_test
async def test_another_request_under_the_same_key_is_refused(keys: MongoIdempotencyRepository) -> None:
    await keys.begin("usr_1", "key", "hash", now=NOW)
    for finished in (False, True):
        if finished:
            await keys.finish("usr_1", "key", ANSWER, now=NOW)
        with pytest.raises(Conflict) as caught:
            await keys.begin("usr_1", "key", "other", now=NOW)
        assert caught.value.stable_code == "idempotency_key_reused"


@pytest.mark.gen_test
async def test_an_abandoned_key_is_free_again(keys: MongoIdempotencyRepository) -> None:
    await keys.begin("usr_1", "key", "hash", now=NOW)
    await keys.abandon("usr_1", "key")
    assert await keys.begin("usr_1", "key", "other", now=NOW) is None


@pytest.mark.gen_test
async def test_a_finished_answer_is_not_abandoned(keys: MongoIdempotencyRepository) -> None:
    await keys.begin("usr_1", "key", "hash", now=NOW)
    await keys.finish("usr_1", "key", ANSWER, now=NOW)
    await keys.abandon("usr_1", "key")
    assert await keys.begin("usr_1", "key", "hash", now=NOW) == ANSWER


@pytest.mark.gen_test
async def test_keys_of_other_scopes_are_apart(keys: MongoIdempotencyRepository) -> None:
    assert await keys.begin("usr_1", "1:key", "hash", now=NOW) is None
    assert await keys.begin("usr_1:1", "key", "other", now=NOW) is None


@pytest.mark.gen_test
async def test_one_takes_over_from_a_process_that_died(keys: MongoIdempotencyRepository) -> None:
    await keys.begin("usr_1", "key", "hash", now=NOW)
    later = NOW + ABANDONED_AFTER + timedelta(seconds=1)
    racers = [keys.begin("usr_1", "key", "hash", now=later) for _ in range(20)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert results.count(None) == 1
    assert all(isinstance(each, Conflict) for each in results if each is not None)


@pytest.mark.gen_test
async def test_what_still_runs_is_not_taken_over(keys: MongoIdempotencyRepository) -> None:
    await keys.begin("usr_1", "runs", "hash", now=NOW)
    await keys.begin("usr_1", "died", "hash", now=NOW)
    await keys.renew([("usr_1", "runs"), ("usr_1", "never begun")], now=NOW + ABANDONED_AFTER)
    later = NOW + ABANDONED_AFTER + timedelta(seconds=1)
    with pytest.raises(Conflict):
        await keys.begin("usr_1", "runs", "hash", now=later)
    assert await keys.begin("usr_1", "died", "hash", now=later) is None
    assert await keys.begin("usr_1", "never begun", "hash", now=later) is None
