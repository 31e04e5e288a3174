"""The cache: reads never wait, writes are for what changed, nothing is lost while the database is away."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.agents.cache import DETAIL_SECONDS, SEEN_SECONDS, UNWRITTEN_REVISIONS, StateCache
from controlplane.agents.states import is_stale
from controlplane.errors import StorageUnavailable
from controlplane.models import AgentState, Process
from tests.fakes import FakeClock, FakeStateRepository


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def repository() -> FakeStateRepository:
    return FakeStateRepository()


@pytest.fixture
def cache(repository: FakeStateRepository, clock: FakeClock) -> StateCache:
    return StateCache(repository, clock)


def running(clock: FakeClock, **more: object) -> AgentState:
    fields = {"process": Process.RUNNING, "confirmed": True, "observed_at": clock.now(), "revision": 1, **more}
    return replace(AgentState("gs_1"), **fields)  # type: ignore[arg-type]


@pytest.mark.gen_test
async def test_news_is_written_at_once_and_only_once(
    cache: StateCache, repository: FakeStateRepository, clock: FakeClock
) -> None:
    cache.put(running(clock))
    await cache.flush(fence=1)
    await cache.flush(fence=1)
    assert repository.writes == [["gs_1"]]
    assert repository.states["gs_1"] is cache.get("gs_1")


@pytest.mark.gen_test
async def test_moving_detail_waits_and_is_written_in_its_latest_form(
    cache: StateCache, repository: FakeStateRepository, clock: FakeClock
) -> None:
    cache.put(running(clock))
    await cache.flush(fence=1)
    for revision in (2, 3, 4):
        cache.put(running(clock, revision=revision, detail={"cpuPercent": revision}))
        await cache.flush(fence=1)
    assert repository.states["gs_1"].revision == 1
    clock.advance(DETAIL_SECONDS)
    await cache.flush(fence=1)
    assert repository.states["gs_1"].revision == 4
    assert len(repository.writes) == 2


@pytest.mark.gen_test
async def test_seen_again_is_one_command_for_all(
    cache: StateCache, repository: FakeStateRepository, clock: FakeClock
) -> None:
    for number in range(3):
        cache.put(replace(running(clock), instance_id=f"gs_{number}"))
    await cache.flush(fence=1)
    clock.advance(SEEN_SECONDS)
    for number in range(3):
        cache.put(replace(running(clock), instance_id=f"gs_{number}"))
    await cache.flush(fence=1)
    assert repository.touches == [["gs_0", "gs_1", "gs_2"]]
    assert len(repository.writes) == 1
    assert repository.states["gs_2"].observed_at == clock.now()


@pytest.mark.gen_test
async def test_nothing_is_lost_while_the_database_is_away(
    cache: StateCache, repository: FakeStateRepository, clock: FakeClock
) -> None:
    repository.is_away = True
    cache.put(running(clock))
    with pytest.raises(StorageUnavailable):
        await cache.flush(fence=1)
    cache.put(running(clock, process=Process.CRASHED, revision=2))
    assert cache.waiting == 1
    repository.is_away = False
    await cache.flush(fence=1)
    assert repository.states["gs_1"].process is Process.CRASHED
    assert cache.waiting == 0


@pytest.mark.gen_test
async def test_what_is_loaded_is_stale_and_continues_with_fresh_revisions(
    cache: StateCache, repository: FakeStateRepository, clock: FakeClock
) -> None:
    repository.states["gs_1"] = running(clock, revision=7)
    await cache.load()
    loaded = cache.get("gs_1")
    assert is_stale(loaded, clock.now(), 30)
    assert loaded.process is Process.RUNNING
    assert loaded.revision == 7 + UNWRITTEN_REVISIONS


@pytest.mark.gen_test
async def test_a_follower_sees_what_the_poller_wrote(
    cache: StateCache, repository: FakeStateRepository, clock: FakeClock
) -> None:
    told: list[tuple[Process, Process]] = []
    cache.add_listener(lambda before, after: told.append((before.process, after.process)))
    repository.states["gs_1"] = running(clock)
    await cache.follow()
    await cache.follow()
    assert cache.get("gs_1").process is Process.RUNNING
    assert told == [(Process.UNKNOWN, Process.RUNNING)]


@pytest.mark.gen_test
async def test_who_stops_polling_writes_nothing_of_what_waited(
    cache: StateCache, repository: FakeStateRepository, clock: FakeClock
) -> None:
    cache.put(running(clock))
    cache.begin_following()
    await cache.flush(fence=1, everything=True)
    assert repository.writes == []
    assert is_stale(cache.get("gs_1"), clock.now() + timedelta(0), 30)


@pytest.mark.gen_test
async def test_a_forgotten_agent_is_not_written(
    cache: StateCache, repository: FakeStateRepository, clock: FakeClock
) -> None:
    cache.put(running(clock))
    cache.forget("gs_1")
    await cache.flush(fence=1, everything=True)
    assert repository.states == {}
