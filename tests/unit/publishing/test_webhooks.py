"""Outbound webhooks: who is told, in which attempts, when they are given up, and how they come back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from controlplane.errors import Conflict, InvalidInput, NotFound, Unavailable
from controlplane.models import DeliveryState, Instance, InstanceKind, WebhookDelivery, WebhookEndpoint, WebhookEvent
from controlplane.publishing.signing import signed_headers
from controlplane.publishing.webhooks import ATTEMPTS_AT_ONCE, MAX_ENDPOINTS, RETRY_SECONDS, Webhooks
from controlplane.secretbox import SecretBox
from tests.fakes import FakeClock

INSTANCE = Instance(
    id="gs_1",
    kind=InstanceKind.GAME,
    vmid=101,
    name="Oakvale",
    owner_id="usr_1",
    address="10.0.0.5",
    port=8081,
    sealed_token=b"sealed",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)
READY = WebhookEvent.READY


class FakeEndpoints:
    def __init__(self) -> None:
        self.rows: dict[str, WebhookEndpoint] = {}

    async def add(self, endpoint: WebhookEndpoint) -> None:
        self.rows[endpoint.id] = endpoint

    async def get(self, endpoint_id: str) -> WebhookEndpoint | None:
        return self.rows.get(endpoint_id)

    async def list_enabled(self) -> list[WebhookEndpoint]:
        return [each for _, each in sorted(self.rows.items()) if each.disabled_at is None]

    async def disable(self, endpoint_id: str, at: datetime) -> bool:
        row = self.rows.get(endpoint_id)
        if row is None or row.disabled_at is not None:
            return False
        self.rows[endpoint_id] = replace(row, disabled_at=at)
        return True


class FakeDeliveries:
    def __init__(self) -> None:
        self.rows: dict[str, WebhookDelivery] = {}

    async def add(self, delivery: WebhookDelivery) -> None:
        self.rows.setdefault(delivery.id, delivery)

    async def get(self, delivery_id: str) -> WebhookDelivery | None:
        return self.rows.get(delivery_id)

    async def due(self, endpoint_id: str, now: datetime, *, limit: int) -> list[WebhookDelivery]:
        due = [
            each
            for each in self.rows.values()
            if (each.endpoint_id, each.state) == (endpoint_id, DeliveryState.PENDING) and each.next_attempt_at <= now
        ]
        return sorted(due, key=lambda each: each.next_attempt_at)[:limit]

    async def replace(self, delivery: WebhookDelivery, *, attempted: WebhookDelivery) -> bool:
        known = self.rows[delivery.id]
        if (known.attempts, known.next_attempt_at) != (attempted.attempts, attempted.next_attempt_at):
            return False
        self.rows[delivery.id] = delivery
        return True

    async def restart(self, delivery_id: str, now: datetime) -> WebhookDelivery | None:
        row = self.rows.get(delivery_id)
        if row is None:
            return None
        fresh = replace(row, state=DeliveryState.PENDING, attempts=0, next_attempt_at=now, outcome=None)
        self.rows[delivery_id] = fresh
        return fresh

    async def page(self, *, state: DeliveryState | None, limit: int, after: str | None) -> list[WebhookDelivery]:
        rows = [each for key, each in sorted(self.rows.items()) if after is None or key > after]
        return [each for each in rows if state is None or each.state is state][:limit]


class FakeLeases:
    """Free, or another's."""

    def __init__(self) -> None:
        self.is_anothers = False

    async def acquire(self, name: str, owner: str, *, ttl_seconds: float) -> object | None:
        return None if self.is_anothers else object()


@dataclass
class FakeSender:
    """Answers each URL with its status, or with none where that is 0. `meanwhile` happens once, before an answer."""

    answers: dict[str, int] = field(default_factory=dict)
    sent: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        self.sent.append((url, dict(headers), body))
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        status = self.answers.get(url, 200)
        if status == 0:
            raise Unavailable("could not be reached: refused")
        return status


class House:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.endpoints = FakeEndpoints()
        self.deliveries = FakeDeliveries()
        self.leases = FakeLeases()
        self.sender = FakeSender()
        self.webhooks = Webhooks(
            endpoints=self.endpoints,
            deliveries=self.deliveries,
            leases=self.leases,  # type: ignore[arg-type]
            sender=self.sender,  # type: ignore[arg-type]
            secret_box=SecretBox(bytes(32)),
            clock=self.clock,
            owner="me",
        )

    async def rounds(self, count: int, seconds: float) -> None:
        for _ in range(count):
            self.clock.advance(seconds)
            await self.webhooks.run_once()

    @property
    def only(self) -> WebhookDelivery:
        (delivery,) = self.deliveries.rows.values()
        return delivery


@pytest.mark.gen_test
async def test_those_who_asked_for_an_event_are_told_with_a_signature_that_verifies() -> None:
    house = House()
    wanted = await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    await house.webhooks.create_endpoint("https://b.example/in", ["instance.deleted"])
    await house.webhooks.announce(READY, INSTANCE)
    await house.webhooks.run_once()
    ((url, headers, body),) = house.sender.sent
    assert url == "https://a.example/in"
    assert headers == signed_headers(wanted.secret, headers["webhook-id"], body, house.clock.now())
    assert json.loads(body) == {
        "type": "instance.ready",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "data": {"id": "gs_1", "kind": "game", "vmid": 101, "name": "Oakvale", "ownerId": "usr_1"},
    }
    assert house.only.state is DeliveryState.DELIVERED
    await house.rounds(3, 100_000)
    assert len(house.sender.sent) == 1


@pytest.mark.gen_test
async def test_an_event_announced_twice_is_one_and_a_later_revision_is_another() -> None:
    house = House()
    await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    await house.webhooks.announce(READY, INSTANCE)
    await house.webhooks.announce(READY, INSTANCE)
    assert len(house.deliveries.rows) == 1
    await house.webhooks.announce(READY, replace(INSTANCE, revision=7))
    assert len({each.event_id for each in house.deliveries.rows.values()}) == 2


@pytest.mark.parametrize("status", [0, 301, 404, 500])
@pytest.mark.gen_test
async def test_a_failure_is_tried_again_ever_later_and_then_given_up(status: int) -> None:
    house = House()
    house.sender.answers["https://a.example/in"] = status
    await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    await house.webhooks.announce(READY, INSTANCE)
    await house.webhooks.run_once()
    for attempt, seconds in enumerate(RETRY_SECONDS, start=1):
        assert (house.only.state, house.only.attempts) == (DeliveryState.PENDING, attempt)
        await house.rounds(1, seconds - 1)
        assert len(house.sender.sent) == attempt
        await house.rounds(1, 1)
        assert len(house.sender.sent) == attempt + 1
    assert house.only.state is DeliveryState.DEAD
    assert house.only.outcome == ("could not be reached: refused" if status == 0 else f"answered {status}")
    assert len({headers["webhook-id"] for _, headers, _ in house.sender.sent}) == 1
    assert len({headers["webhook-timestamp"] for _, headers, _ in house.sender.sent}) == len(house.sender.sent)


@pytest.mark.gen_test
async def test_what_was_given_up_is_listed_and_replayed_by_id_under_the_same_event_id() -> None:
    house = House()
    house.sender.answers["https://a.example/in"] = 500
    await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    await house.webhooks.announce(READY, INSTANCE)
    await house.rounds(len(RETRY_SECONDS) + 1, RETRY_SECONDS[-1])
    (dead,) = await house.webhooks.page(state=DeliveryState.DEAD, limit=10, after=None)
    house.sender.answers["https://a.example/in"] = 204
    house.sender.sent.clear()
    await house.webhooks.replay(dead.id)
    await house.webhooks.run_once()
    assert [headers["webhook-id"] for _, headers, _ in house.sender.sent] == [dead.event_id]
    assert house.only.state is DeliveryState.DELIVERED
    with pytest.raises(NotFound):
        await house.webhooks.replay("whd_none")


@pytest.mark.gen_test
async def test_a_replay_during_an_attempt_is_an_attempt_of_its_own() -> None:
    house = House()
    await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    await house.webhooks.announce(READY, INSTANCE)
    house.clock.advance(1)
    house.sender.meanwhile = lambda: house.webhooks.replay(house.only.id)
    await house.webhooks.run_once()
    assert (house.only.state, house.only.attempts) == (DeliveryState.PENDING, 0)
    await house.webhooks.run_once()
    assert len(house.sender.sent) == 2
    assert (house.only.state, house.only.attempts) == (DeliveryState.DELIVERED, 1)


@pytest.mark.gen_test
async def test_an_endpoint_that_says_it_is_gone_is_disabled() -> None:
    house = House()
    house.sender.answers["https://a.example/in"] = 410
    await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    await house.webhooks.announce(READY, INSTANCE)
    await house.webhooks.run_once()
    assert house.only.state is DeliveryState.DEAD
    assert await house.webhooks.list_endpoints() == []
    with pytest.raises(Conflict) as refused:
        await house.webhooks.replay(house.only.id)
    assert refused.value.stable_code == "webhook_disabled"


@pytest.mark.gen_test
async def test_a_dead_endpoint_with_much_to_tell_takes_no_turn_from_the_others() -> None:
    house = House()
    house.sender.answers["https://dead.example/in"] = 0
    await house.webhooks.create_endpoint("https://dead.example/in", ["instance.ready"])
    for revision in range(50):
        await house.webhooks.announce(READY, replace(INSTANCE, revision=revision))
    await house.webhooks.create_endpoint("https://live.example/in", ["instance.ready"])
    await house.webhooks.announce(READY, replace(INSTANCE, revision=99))
    await house.webhooks.run_once()
    told = [url for url, _, _ in house.sender.sent]
    assert told.count("https://live.example/in") == 1
    assert told.count("https://dead.example/in") == ATTEMPTS_AT_ONCE


@pytest.mark.gen_test
async def test_without_the_lease_nothing_is_sent() -> None:
    house = House()
    house.leases.is_anothers = True
    await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    await house.webhooks.announce(READY, INSTANCE)
    await house.webhooks.run_once()
    assert house.sender.sent == []


@pytest.mark.gen_test
async def test_a_removed_endpoint_is_not_told_any_more() -> None:
    house = House()
    created = await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    await house.webhooks.announce(READY, INSTANCE)
    await house.webhooks.remove_endpoint(created.endpoint.id)
    await house.webhooks.run_once()
    assert house.sender.sent == []
    with pytest.raises(NotFound):
        await house.webhooks.remove_endpoint(created.endpoint.id)


@pytest.mark.gen_test
async def test_the_secret_is_sealed_at_rest_and_not_in_what_is_printed() -> None:
    house = House()
    created = await house.webhooks.create_endpoint("https://a.example/in", ["instance.ready"])
    assert created.secret.encode() not in created.endpoint.sealed_secret
    assert created.secret not in repr(created)


@pytest.mark.parametrize(
    "url", ["ftp://a.example", "https://", "https://u:p@a.example/", "https://a.example/#x", "https://a:99999/", "a"]
)
@pytest.mark.gen_test
async def test_what_is_no_url_for_a_webhook_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await House().webhooks.create_endpoint(url, ["instance.ready"])
    assert list(refused.value.fields) == ["url"]


@pytest.mark.gen_test
async def test_unknown_events_are_named_and_the_number_of_webhooks_is_bounded() -> None:
    house = House()
    with pytest.raises(InvalidInput) as refused:
        await house.webhooks.create_endpoint("https://a.example", ["instance.ready", "instance.exploded"])
    assert refused.value.fields == {"events": ["unknown events: instance.exploded"]}
    for _ in range(MAX_ENDPOINTS):
        await house.webhooks.create_endpoint("https://a.example", ["instance.ready"])
    with pytest.raises(Conflict) as full:
        await house.webhooks.create_endpoint("https://a.example", ["instance.ready"])
    assert full.value.stable_code == "too_many_webhooks"
