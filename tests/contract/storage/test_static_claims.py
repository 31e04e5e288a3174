"""Claims of the static pool: one holder a host, one host a vmid, and no host twice before it was wiped."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.errors import Conflict
from controlplane.models import StaticClaim
from controlplane.storage.database import Database
from controlplane.storage.static_claims import MongoStaticClaimRepository


@pytest.fixture
def claims(database: Database) -> MongoStaticClaimRepository:
    return MongoStaticClaimRepository(database)


@pytest.mark.gen_test
async def test_of_many_that_want_a_host_at_once_one_gets_it(claims: MongoStaticClaimRepository) -> None:
    results = await asyncio.gather(*(claims.claim("red", 1, 100 + n, f"op_{n}") for n in range(20)))
    assert sum(results) == 1
    winner = results.index(True)
    assert await claims.load_all() == [StaticClaim("red", 100 + winner, f"op_{winner}", is_started=False)]


@pytest.mark.gen_test
async def test_of_many_that_claim_hosts_for_one_vmid_one_gets_one(claims: MongoStaticClaimRepository) -> None:
    results = await asyncio.gather(
        *(claims.claim(f"host-{n}", 1, 100, f"op_{n}") for n in range(10)), return_exceptions=True
    )
    assert results.count(True) == 1
    assert all(isinstance(each, Conflict) and each.stable_code == "vmid_taken" for each in results if each is not True)
    assert await claims.find(100) is not None
    assert len(await claims.load_all()) == 1


@pytest.mark.gen_test
async def test_a_host_given_back_waits_for_its_next_generation(claims: MongoStaticClaimRepository) -> None:
    assert await claims.claim("red", 1, 100, "op_a")
    await claims.release(100, "op_b")
    assert await claims.find(100) is not None, "another operation's claim is not released"
    await claims.release(100, "op_a")
    await claims.release(100, "op_a")
    assert await claims.find(100) is None
    assert not await claims.claim("red", 1, 101, "op_b")
    results = await asyncio.gather(*(claims.claim("red", 2, 101 + n, f"op_{n}") for n in range(5)))
    assert sum(results) == 1
    assert not await claims.claim("red", 3, 110, "op_z"), "in use: a generation does not free it"


@pytest.mark.gen_test
async def test_whether_the_workload_was_started_is_its_operations_to_say(claims: MongoStaticClaimRepository) -> None:
    await claims.claim("red", 1, 100, "op_a")
    await claims.set_started(100, "op_b", is_started=True)
    assert await claims.find(100) == StaticClaim("red", 100, "op_a", is_started=False)
    await claims.set_started(100, "op_a", is_started=True)
    assert await claims.find(100) == StaticClaim("red", 100, "op_a", is_started=True)
