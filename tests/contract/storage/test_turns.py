"""One at a time under each name, within a process and between processes."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.errors import Conflict, Overloaded, StaleRevision, StorageUnavailable
from controlplane.storage.database import Database
from controlplane.storage.leases import MongoLeaseRepository
from controlplane.turns import Turns

AT_MOST = 20
LEASE_SECONDS = 600.0  # no turn here is long enough to be renewed


def make_turns(database: Database, owner: str = "owner", *, wait_seconds: float = 50, at_most: int = AT_MOST) -> Turns:
    return Turns(
        MongoLeaseRepository(database),
        owner,
        "account",
        at_most=at_most,
        wait_seconds=wait_seconds,
        busy=lambda: Overloaded("busy"),
        lease_seconds=LEASE_SECONDS,
    )


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


@pytest.mark.gen_test
async def test_nobody_is_inside_with_another(database: Database) -> None:
    counter = Counter()
    processes = [make_turns(database, f"owner-{n}") for n in range(2)]
    await asyncio.gather(*(counter.enter(turns, "usr_1") for turns in processes for _ in range(5)))
    assert counter.entered == 10


@pytest.mark.gen_test
async def test_names_do_not_wait_for_each_other(database: Database) -> None:
    turns = make_turns(database)
    async with turns.of("usr_1"), turns.of("usr_2"):
        pass


@pytest.mark.gen_test
async def test_who_waits_too_long_or_behind_too_many_is_told(database: Database) -> None:
    impatient = make_turns(database, wait_seconds=0.05)
    async with impatient.of("usr_1"):
        with pytest.raises(Overloaded):
            async with impatient.of("usr_1"):
                pass
        with pytest.raises(Overloaded):
            async with make_turns(database, "another", wait_seconds=0.05).of("usr_1"):
                pass
    turns = make_turns(database)
    async with turns.of("usr_1"):
        waiting = [asyncio.ensure_future(Counter().enter(turns, "usr_1")) for _ in range(AT_MOST + 4)]
        _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        assert len(pending) <= AT_MOST
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(each, Overloaded) for each in results) == 5


@pytest.mark.gen_test
async def test_a_turn_whose_lease_passed_on_is_over(database: Database) -> None:
    async with make_turns(database, "slow").of("usr_1") as turn:
        await turn.check()
        await database.collection("leases").update_many({}, {"$set": {"expires_ms": 0}})
        async with make_turns(database, "quick").of("usr_1") as other:
            await other.check()
            with pytest.raises(StaleRevision):
                await turn.check()


@pytest.mark.gen_test
async def test_what_one_found_out_serves_those_who_asked_before_it_began(database: Database) -> None:
    turns = make_turns(database)
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


@pytest.mark.gen_test
async def test_where_nobody_may_wait_the_second_is_told_at_once_in_whichever_process(database: Database) -> None:
    here = make_turns(database, "here", wait_seconds=0, at_most=1)
    there = make_turns(database, "there", wait_seconds=0, at_most=1)
    async with here.of("gs_1"):
        for turns in (here, there):
            with pytest.raises(Overloaded):
                async with turns.of("gs_1"):
                    pass
    async with there.of("gs_1"):
        pass


@pytest.mark.gen_test
async def test_a_failure_inside_gives_the_turn_back(database: Database) -> None:
    with pytest.raises(Conflict):
        async with make_turns(database, "here").of("usr_1"):
            raise Conflict("No.")
    async with make_turns(database, "there", wait_seconds=0).of("usr_1"):
        pass


class ForgetfulLeases(MongoLeaseRepository):
    """The database is away when a lease is to be given back."""

    async def release(self, name: str, owner: str) -> None:
        raise StorageUnavailable


@pytest.mark.gen_test
async def test_what_was_done_counts_although_the_lease_cannot_be_given_back(database: Database) -> None:
    turns = Turns(
        ForgetfulLeases(database), "here", "account", at_most=1, wait_seconds=0, busy=lambda: Overloaded("busy")
    )
    done = []
    for _ in range(2):  # the lease is this process's own still
        async with turns.of("usr_1"):
            done.append(True)
    assert done == [True, True]
