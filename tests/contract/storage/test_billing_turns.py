"""One at a time for each customer, within a process and between processes."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.billing.turns import WAITERS_PER_USER, Turns
from controlplane.errors import Overloaded, StaleRevision
from controlplane.storage.database import Database
from controlplane.storage.leases import MongoLeaseRepository


class Counter:
    """Says when two were inside at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.entered = 0

    async def enter(self, turns: Turns, user_id: str) -> None:
        async with turns.of(user_id):
            self.inside += 1
            self.entered += 1
            assert self.inside == 1
            await asyncio.sleep(0)
            self.inside -= 1


@pytest.mark.gen_test(timeout=60)
async def test_nobody_is_inside_with_another(database: Database) -> None:
    counter = Counter()
    processes = [Turns(MongoLeaseRepository(database), f"owner-{n}", wait_seconds=50) for n in range(2)]
    await asyncio.gather(*(counter.enter(turns, "usr_1") for turns in processes for _ in range(5)))
    assert counter.entered == 10


@pytest.mark.gen_test(timeout=60)
async def test_customers_do_not_wait_for_each_other(database: Database) -> None:
    turns = Turns(MongoLeaseRepository(database), "owner")
    async with turns.of("usr_1"), turns.of("usr_2"):
        pass


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_too_long_or_behind_too_many_is_told(database: Database) -> None:
    leases = MongoLeaseRepository(database)
    impatient = Turns(leases, "owner", wait_seconds=0.05)
    async with impatient.of("usr_1"):
        with pytest.raises(Overloaded):
            async with impatient.of("usr_1"):
                pass
        with pytest.raises(Overloaded):
            async with Turns(leases, "another", wait_seconds=0.05).of("usr_1"):
                pass
    turns = Turns(leases, "owner")
    async with turns.of("usr_1"):
        waiting = [asyncio.ensure_future(Counter().enter(turns, "usr_1")) for _ in range(WAITERS_PER_USER + 4)]
        _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        assert len(pending) <= WAITERS_PER_USER
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(each, Overloaded) for each in results) == 5


@pytest.mark.gen_test(timeout=60)
async def test_a_turn_whose_lease_passed_on_is_over(database: Database) -> None:
    leases = MongoLeaseRepository(database)
    async with Turns(leases, "slow").of("usr_1") as turn:
        await turn.check()
        await database.collection("leases").update_many({}, {"$set": {"expires_ms": 0}})
        async with Turns(leases, "quick").of("usr_1") as other:
            await other.check()
            with pytest.raises(StaleRevision):
                await turn.check()


@pytest.mark.gen_test(timeout=60)
async def test_what_one_found_out_serves_those_who_asked_before_it_began(database: Database) -> None:
    turns = Turns(MongoLeaseRepository(database), "owner")
    loop = asyncio.get_running_loop()
    found: list[object] = []

    async def wait(asked_at: float) -> None:
        async with turns.of("usr_1") as turn:
            found.append(turn.found_since(asked_at))

    async with turns.of("usr_1") as turn:
        early = loop.time()
        waiting = asyncio.ensure_future(wait(early))
        await asyncio.sleep(0)
        began_at = loop.time()
        late = asyncio.ensure_future(wait(began_at + 1))
        await asyncio.sleep(0)
        turn.leave(began_at, "news")
    await asyncio.gather(waiting, late)
    assert found == ["news", None]
    await wait(0)
    assert found[-1] is None  # nobody waited any more: it is forgotten
