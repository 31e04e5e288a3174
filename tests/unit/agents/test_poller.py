"""The poller's schedule, on a clock that the tests move."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.agents.cache import StateCache
from controlplane.agents.client import AgentClient
from controlplane.agents.poller import MAX_BACKOFF_SECONDS, Poller, PollTarget
from controlplane.errors import AgentUnreachable
from controlplane.models import AgentEndpoint, Connection, Process
from controlplane.observability.metrics import Metrics
from controlplane.ports import AgentResponse
from tests.fakes import FakeClock, FakeStateRepository, FakeTransport

INTERVAL = 10.0


class House:
    """A poller with everything around it; agents are named by their port."""

    def __init__(self, *, concurrency: int = 8) -> None:
        self.clock = FakeClock()
        self.transport = FakeTransport()
        self.cache = StateCache(FakeStateRepository(), self.clock)
        client = AgentClient(
            self.transport,
            poll_timeout_seconds=5,
            action_timeout_seconds=5,
            backup_timeout_seconds=5,
            body_limit_bytes=100_000,
        )
        self.poller = Poller(
            client,
            self.cache,
            self.clock,
            Metrics(),
            interval_seconds=INTERVAL,
            concurrency=concurrency,
            random=lambda: 0.5,
        )

    def watch(self, port: int) -> None:
        self.poller.watch(PollTarget(str(port), AgentEndpoint("127.0.0.1", port, "token")))

    async def settle(self) -> None:
        """Let every poll that can end, end."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float, step: float = 0.5) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            await self.poller.run_once()
            await self.settle()


@pytest.mark.gen_test
async def test_each_agent_is_asked_once_an_interval_from_its_own_point_of_it() -> None:
    house = House()
    house.watch(1)
    await house.pass_time(4.5)
    assert house.transport.asked == []
    await house.pass_time(0.5)
    assert house.transport.asked == [(1, "/health"), (1, "/ready"), (1, "/status")]
    await house.pass_time(10 * INTERVAL)
    assert house.transport.polls_of(1) == 11


@pytest.mark.gen_test
async def test_what_was_seen_is_in_the_cache() -> None:
    house = House()
    house.watch(1)
    await house.pass_time(INTERVAL)
    assert house.cache.get("1").ready
    assert house.cache.get("1").process is Process.RUNNING


@pytest.mark.gen_test
async def test_a_silent_agent_is_asked_less_and_less_and_recovers_at_the_first_answer() -> None:
    house = House()
    house.transport.answers[1] = AgentUnreachable("gone")
    house.watch(1)
    await house.pass_time(3 * INTERVAL)
    assert house.cache.get("1").connection is Connection.DISCONNECTED
    await house.pass_time(600)
    in_backoff = house.transport.polls_of(1)
    assert 600 / MAX_BACKOFF_SECONDS <= in_backoff - 3 <= 16
    del house.transport.answers[1]
    await house.pass_time(MAX_BACKOFF_SECONDS)
    assert house.cache.get("1").connection is Connection.CONNECTED
    before = house.transport.polls_of(1)
    await house.pass_time(5 * INTERVAL)
    assert house.transport.polls_of(1) == before + 5


@pytest.mark.gen_test
async def test_agents_that_hang_take_no_slot_of_the_healthy() -> None:
    house = House(concurrency=8)
    for port in range(1, 21):
        house.transport.answers[port] = AgentUnreachable("gone")
        house.watch(port)
    for port in range(100, 140):
        house.watch(port)
    await house.pass_time(INTERVAL)
    house.transport.silent.update(range(1, 21))
    await house.pass_time(5 * INTERVAL)
    assert len(house.transport.waiting) == 2, "the silent lane's own cap"
    assert all(house.transport.polls_of(port) == 6 for port in range(100, 140))


@pytest.mark.gen_test
async def test_no_more_polls_run_at_once_than_allowed_and_the_rest_follow() -> None:
    house = House(concurrency=4)
    house.transport.silent.update(range(1, 11))
    for port in range(1, 11):
        house.watch(port)
    await house.pass_time(INTERVAL)
    assert len(house.transport.waiting) == 4
    assert house.poller.overdue_seconds(house.clock.monotonic()) > 0
    house.transport.silent.clear()
    for future in house.transport.waiting:
        future.set_result(AgentResponse(200, {}, b"{}"))
    await house.settle()
    assert {port for port, _ in house.transport.asked} == set(range(1, 11))


@pytest.mark.gen_test
async def test_poll_now_looks_at_once_and_more_often_until_the_agent_has_settled() -> None:
    house = House()
    house.transport.answers[1] = AgentResponse(200, {}, b'{"ready": false, "state": "stopping"}')
    house.watch(1)
    await house.pass_time(INTERVAL)
    before = house.transport.polls_of(1)
    house.poller.poll_now("1")
    await house.settle()
    assert house.transport.polls_of(1) == before + 1
    await house.pass_time(3)
    assert house.transport.polls_of(1) == before + 4
    house.transport.answers[1] = AgentResponse(200, {}, b'{"ready": false, "state": "stopped"}')
    await house.pass_time(1)
    settled = house.transport.polls_of(1)
    await house.pass_time(INTERVAL - 1)
    assert house.transport.polls_of(1) <= settled + 1


@pytest.mark.gen_test
async def test_poll_now_again_and_again_does_not_hammer_the_agent() -> None:
    house = House()
    house.watch(1)
    await house.poller.run_once()
    for _ in range(50):
        house.poller.poll_now("1")
        await house.settle()
    assert house.transport.polls_of(1) == 1


@pytest.mark.gen_test
async def test_poll_now_during_a_poll_looks_again_after_it() -> None:
    house = House()
    house.transport.silent.add(1)
    house.watch(1)
    await house.pass_time(5)
    assert house.transport.polls_of(1) == 1
    house.poller.poll_now("1")
    house.transport.silent.clear()
    house.transport.waiting[0].set_result(FakeTransport.HEALTHY)
    await house.pass_time(0.5)
    assert house.transport.polls_of(1) == 2


@pytest.mark.gen_test
async def test_a_forgotten_agent_is_not_asked_and_a_poll_under_way_has_no_effect() -> None:
    house = House()
    house.transport.silent.add(1)
    house.watch(1)
    await house.pass_time(5)
    house.poller.forget("1")
    house.transport.waiting[0].set_result(FakeTransport.HEALTHY)
    await house.pass_time(3 * INTERVAL)
    assert house.transport.polls_of(1) == 1
    assert house.cache.get("1").process is Process.UNKNOWN
    assert [endpoint.port for endpoint in house.transport.forgotten] == [1]


@pytest.mark.gen_test
async def test_a_changed_endpoint_is_asked_at_once_and_the_old_answer_does_not_count() -> None:
    house = House()
    house.transport.silent.add(1)
    house.watch(1)
    await house.pass_time(5)
    house.poller.watch(PollTarget("1", AgentEndpoint("127.0.0.1", 2, "token")))
    house.transport.waiting[0].set_exception(AgentUnreachable("gone"))
    await house.pass_time(0.5)
    assert house.transport.polls_of(2) == 1
    assert house.cache.get("1").consecutive_failures == 0
    assert house.cache.get("1").ready


@pytest.mark.gen_test
async def test_after_a_pause_the_agents_do_not_come_all_at_once() -> None:
    house = House(concurrency=100)
    for port in range(1, 51):
        house.watch(port)
    await house.pass_time(INTERVAL)
    house.clock.advance(300)  # the machine slept
    await house.poller.run_once()
    await house.settle()
    assert house.poller.overdue_seconds(house.clock.monotonic()) == 0
    await house.pass_time(INTERVAL)
    assert all(house.transport.polls_of(port) in (3, 4) for port in range(1, 51))


@pytest.mark.gen_test
async def test_draining_waits_for_polls_under_way_and_starts_none() -> None:
    house = House()
    house.transport.silent.add(1)
    house.watch(1)
    house.watch(2)
    await house.pass_time(5)
    draining = asyncio.ensure_future(house.poller.drain())
    await house.settle()
    assert not draining.done()
    house.transport.waiting[0].set_exception(AgentUnreachable("gone"))
    await draining
    asked = len(house.transport.asked)
    house.clock.advance(100)
    await house.settle()
    assert len(house.transport.asked) == asked
