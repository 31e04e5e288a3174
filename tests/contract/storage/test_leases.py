"""Leases: one holder at a time, an end by the server's clock, a fence that only grows; from real processes too."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.models import Lease
from controlplane.storage.database import Database
from controlplane.storage.leases import MongoLeaseRepository
from tests.contract.storage import processes


@pytest.fixture
def leases(database: Database) -> MongoLeaseRepository:
    return MongoLeaseRepository(database)


async def until_taken(leases: MongoLeaseRepository, owner: str) -> Lease:
    return await processes.eventually(lambda: leases.acquire("work", owner, ttl_seconds=30))


@pytest.mark.gen_test
async def test_one_of_many_racers_gets_a_new_lease(leases: MongoLeaseRepository) -> None:
    results = await asyncio.gather(*(leases.acquire("work", f"owner-{n}", ttl_seconds=30) for n in range(40)))
    held = [lease for lease in results if lease is not None]
    assert [lease.fence for lease in held] == [1]
    assert held[0].owner == f"owner-{results.index(held[0])}"


@pytest.mark.gen_test
async def test_renewing_keeps_the_fence_and_moves_the_end(leases: MongoLeaseRepository) -> None:
    first = await leases.acquire("work", "me", ttl_seconds=600)
    second = await leases.acquire("work", "me", ttl_seconds=1200)
    assert first is not None
    assert second is not None
    assert second.fence == first.fence
    assert second.expires_at > first.expires_at
    assert first.expires_at.utcoffset() is not None


@pytest.mark.gen_test
async def test_another_owner_waits_for_the_end_and_gets_a_higher_fence(leases: MongoLeaseRepository) -> None:
    first = await leases.acquire("work", "me", ttl_seconds=600)
    assert first is not None
    assert await leases.is_current("work", "me", first.fence)
    assert await leases.acquire("work", "you", ttl_seconds=30) is None
    await leases.acquire("work", "me", ttl_seconds=0.2)
    second = await until_taken(leases, "you")
    assert second.fence == first.fence + 1
    assert not await leases.is_current("work", "me", first.fence)
    assert await leases.is_current("work", "you", second.fence)


@pytest.mark.gen_test
async def test_its_own_expired_lease_is_a_new_one(leases: MongoLeaseRepository) -> None:
    first = await leases.acquire("work", "me", ttl_seconds=0.05)
    assert first is not None

    async def has_ended() -> bool:
        return not await leases.is_current("work", "me", 1)

    await processes.eventually(has_ended)
    second = await leases.acquire("work", "me", ttl_seconds=30)
    assert second is not None
    assert second.fence == first.fence + 1


@pytest.mark.gen_test
async def test_a_released_lease_is_free_and_its_fence_goes_on(leases: MongoLeaseRepository) -> None:
    await leases.acquire("work", "me", ttl_seconds=30)
    await leases.release("work", "you")
    assert await leases.acquire("work", "you", ttl_seconds=30) is None
    await leases.release("work", "me")
    assert not await leases.is_current("work", "me", 1)
    taken = await leases.acquire("work", "you", ttl_seconds=30)
    assert taken is not None
    assert taken.fence == 2


@pytest.mark.gen_test
async def test_leases_of_other_names_are_apart(leases: MongoLeaseRepository) -> None:
    assert await leases.acquire("work", "me", ttl_seconds=30) is not None
    assert await leases.acquire("$owner", "$$ROOT", ttl_seconds=30) is not None
    assert await leases.is_current("$owner", "$$ROOT", 1)


@pytest.mark.gen_test
async def test_two_processes_never_work_at_once(
    database: Database, mongodb_uri: str, leases: MongoLeaseRepository
) -> None:
    turns = 25
    counters = database.collection("counters")
    await counters.insert_one({"_id": "work", "value": 0})
    workers = [processes.start("compete", mongodb_uri, database.name, f"worker-{n}", str(turns)) for n in range(2)]
    outputs = await asyncio.gather(*(asyncio.to_thread(worker.communicate) for worker in workers))
    assert [worker.returncode for worker in workers] == [0, 0]
    fences = sorted(int(fence) for output, _ in outputs for fence in output.split())
    assert fences == list(range(1, 2 * turns + 1))
    assert await counters.find_one({"_id": "work"}) == {"_id": "work", "value": 2 * turns}


@pytest.mark.gen_test
async def test_the_lease_of_a_killed_process_passes_on(
    database: Database, mongodb_uri: str, leases: MongoLeaseRepository
) -> None:
    holder = processes.start("hold", mongodb_uri, database.name, "dead")
    try:
        assert holder.stdout is not None
        fence = int(await asyncio.to_thread(holder.stdout.readline))
    finally:
        holder.kill()
        holder.communicate()
    assert await leases.acquire("work", "heir", ttl_seconds=30) is None
    await database.collection("leases").update_one({"_id": "work"}, {"$inc": {"expires_ms": -600_000}})  # time passes
    taken = await until_taken(leases, "heir")
    assert taken.fence == fence + 1
    assert not await leases.is_current("work", "dead", fence)
