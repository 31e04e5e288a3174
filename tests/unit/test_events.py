"""The history of events: who sees what, how a cursor goes on, what happens at the bounds."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest

from controlplane.agents.cache import StateCache
from controlplane.agents.client import AgentClient
from controlplane.agents.poller import Poller, PollTarget
from controlplane.errors import Overloaded, TooManyRequests
from controlplane.events import SUBSCRIBERS_PER_USER, EventHub, EventKind, Gone, Subscription
from controlplane.instance_views import InstanceViews
from controlplane.instances import InstanceDirectory, Registration
from controlplane.models import AgentState, Connection, Instance, InstanceKind, Principal, Role, User
from controlplane.observability.metrics import Metrics
from controlplane.provisioning.board import OperationBoard
from controlplane.secretbox import SecretBox
from tests.account_house import AccountHouse
from tests.fake_provisioning import FakeOperationRepository
from tests.fake_repositories import FakeInstanceRepository
from tests.fakes import FakeClock, FakeStateRepository, FakeTransport


class House:
    def __init__(self, history_events: int = 100) -> None:
        self.accounts = AccountHouse()
        self.clock = clock = FakeClock()
        self.directory = InstanceDirectory(
            FakeInstanceRepository(),
            self.accounts.users,
            SecretBox(bytes(32)),
            clock,
            check_address=lambda _address: None,
        )
        self.states = StateCache(FakeStateRepository(), clock)
        board = OperationBoard(FakeOperationRepository(clock))
        views = InstanceViews(self.directory, self.states, clock, board, stale_after_seconds=30)
        self.hub = EventHub(self.directory, views, random_id=lambda: "epoch", history_events=history_events)
        self.states.add_listener(self.hub.on_state_change)
        self._vmid = 100

    def poller(self, transport: FakeTransport) -> Poller:
        client = AgentClient(
            transport,
            poll_timeout_seconds=5,
            action_timeout_seconds=5,
            backup_timeout_seconds=5,
            body_limit_bytes=100_000,
        )
        return Poller(
            client, self.states, self.clock, Metrics(), interval_seconds=10, concurrency=8, random=lambda: 0.5
        )

    async def customer(self, email: str) -> tuple[User, Principal]:
        user = await self.accounts.user(email)
        return user, Principal(user.id, email, Role.CUSTOMER, f"ses_{user.id}")

    async def instance(self, owner: User) -> Instance:
        self._vmid += 1
        return await self.directory.register(
            Registration(InstanceKind.GAME, "Oakvale", self._vmid, "127.0.0.1", self._vmid, "t" * 16, owner.id)
        )

    def seen(self, subscription: Subscription) -> list[tuple[str, str]]:
        events = self.hub.read(subscription, 100)
        return [(event.kind.value, orjson.loads(event.data)["id"]) for event in events]


ADMIN = Principal("usr_root", "root@example.org", Role.ADMIN, "ses_root")


@pytest.mark.gen_test
async def test_a_change_of_state_reaches_its_owner_and_administrators_alone() -> None:
    house = House()
    (ada, as_ada), (_, as_bob) = await house.customer("ada@example.org"), await house.customer("bob@example.org")
    instance = await house.instance(ada)
    subscriptions = [house.hub.subscribe(principal, None) for principal in (as_ada, as_bob, ADMIN)]
    house.states.put(replace(AgentState(instance.id), connection=Connection.CONNECTED, revision=1))
    assert [house.seen(each) for each in subscriptions] == [[("state", instance.id)], [], [("state", instance.id)]]
    assert all(subscription.news.is_set() is False for subscription in subscriptions)


@pytest.mark.gen_test
async def test_a_former_owner_is_told_that_it_is_gone_and_the_new_one_that_it_is_there() -> None:
    house = House()
    (ada, as_ada), (bob, as_bob) = await house.customer("ada@example.org"), await house.customer("bob@example.org")
    instance = await house.instance(ada)
    from_ada, from_bob = house.hub.subscribe(as_ada, None), house.hub.subscribe(as_bob, None)
    await house.directory.update(instance.id, {"owner_id": bob.id})
    assert house.seen(from_ada) == [("removed", instance.id)]
    assert house.seen(from_bob) == [("state", instance.id)]
    await house.directory.remove(instance.id)
    assert house.seen(from_bob) == [("removed", instance.id)]


@pytest.mark.gen_test
async def test_a_cursor_goes_on_behind_the_event_that_was_seen_last() -> None:
    house = House()
    ada, as_ada = await house.customer("ada@example.org")
    first = house.hub.subscribe(as_ada, None)
    one = await house.instance(ada)
    last = house.hub.read(first, 100)[-1]
    house.hub.unsubscribe(first)
    two = await house.instance(ada)
    again = house.hub.subscribe(as_ada, house.hub.event_id(last.number))
    assert again.gone is None
    assert house.seen(again) == [("state", two.id)]
    assert one.id != two.id


@pytest.mark.parametrize("cursor", ["other-1", "epoch-x", "epoch", "", "epoch--1", "epoch-" + "9" * 30, "epoch-\u0661"])
@pytest.mark.gen_test
async def test_a_cursor_of_another_process_or_none_at_all_is_told(cursor: str) -> None:
    house = House()
    assert house.hub.subscribe(ADMIN, cursor).gone is Gone.RESTARTED


@pytest.mark.gen_test
async def test_what_fell_out_of_the_history_is_told_to_old_cursors_and_slow_readers() -> None:
    house = House(history_events=3)
    ada, as_ada = await house.customer("ada@example.org")
    slow = house.hub.subscribe(as_ada, None)
    for _ in range(5):
        await house.instance(ada)
    assert house.hub.subscribe(as_ada, house.hub.event_id(1)).gone is Gone.EXPIRED
    assert house.hub.subscribe(as_ada, house.hub.event_id(2)).gone is None
    assert house.hub.subscribe(as_ada, house.hub.event_id(6)).gone is Gone.EXPIRED  # never sent
    assert house.hub.read(slow, 100) == []
    assert slow.gone is Gone.EXPIRED
    slow.gone = None
    last = await house.instance(ada)
    assert house.seen(slow) == [("state", last.id)]


@pytest.mark.gen_test
async def test_nothing_is_rendered_before_there_was_a_subscriber() -> None:
    house = House()
    ada, as_ada = await house.customer("ada@example.org")
    await house.instance(ada)
    subscription = house.hub.subscribe(as_ada, None)
    assert house.hub.read(subscription, 100) == []
    house.hub.unsubscribe(subscription)
    await house.instance(ada)
    assert len(house.hub.read(house.hub.subscribe(as_ada, house.hub.event_id(0)), 100)) == 1


@pytest.mark.gen_test
async def test_streams_are_limited_per_user_and_refused_after_the_end() -> None:
    house = House()
    _, as_ada = await house.customer("ada@example.org")
    streams = [house.hub.subscribe(as_ada, None) for _ in range(SUBSCRIBERS_PER_USER)]
    with pytest.raises(TooManyRequests):
        house.hub.subscribe(as_ada, None)
    house.hub.unsubscribe(streams[0])
    house.hub.unsubscribe(streams[0])
    house.hub.subscribe(as_ada, None)
    with pytest.raises(TooManyRequests):
        house.hub.subscribe(as_ada, None)
    house.hub.close()
    assert streams[1].news.is_set()
    with pytest.raises(Overloaded):
        house.hub.subscribe(ADMIN, None)


@pytest.mark.gen_test
async def test_a_read_is_bounded_and_goes_on_where_it_ended() -> None:
    house = House()
    subscription = house.hub.subscribe(ADMIN, None)
    for number in range(5):
        house.hub.publish(EventKind.BACKUP, "usr_1", orjson.dumps({"id": str(number)}))
    assert len(house.hub.read(subscription, 2)) == 2
    assert subscription.news.is_set()
    assert [name for _, name in house.seen(subscription)] == ["2", "3", "4"]


@pytest.mark.gen_test
async def test_what_a_poll_saw_is_published_before_the_loop_turns_again() -> None:
    """So a change reaches a subscriber within a poll's interval and the time to write it: no tick lies in between."""
    house = House()
    ada, as_ada = await house.customer("ada@example.org")
    instance = await house.instance(ada)
    subscription = house.hub.subscribe(as_ada, None)
    transport = FakeTransport()
    transport.silent.add(instance.port)
    poller = house.poller(transport)
    poller.watch(PollTarget(instance.id, house.directory.endpoint(instance)))
    house.clock.advance(10)
    await poller.run_once()
    read: list[tuple[str, str]] = []
    house.states.add_listener(lambda _before, _after: read.extend(house.seen(subscription)))
    while not read:
        await settle()
        assert transport.waiting, "the poll ended, and nothing was published"
        assert not subscription.news.is_set()
        transport.waiting.pop(0).set_result(FakeTransport.HEALTHY)
        await settle()
    assert read == [("state", instance.id)]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
