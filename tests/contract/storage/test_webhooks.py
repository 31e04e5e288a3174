"""Outbound webhooks in the database: what is due, compare-and-set on attempts, one row an event and endpoint."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.errors import Conflict
from controlplane.models import DeliveryState, WebhookDelivery, WebhookEndpoint, WebhookEvent
from controlplane.storage.database import Database
from controlplane.storage.webhooks import MongoWebhookDeliveryRepository, MongoWebhookEndpointRepository
from tests.contract.storage.moments import NOW


def endpoint(number: int) -> WebhookEndpoint:
    events = frozenset({WebhookEvent.READY, WebhookEvent.DELETED})
    return WebhookEndpoint(f"wh_{number}", f"https://{number}.example/in", events, b"\x00sealed\xff", NOW)


def delivery(number: int, **changes: Any) -> WebhookDelivery:
    plain = WebhookDelivery(
        id=f"whd_{number}",
        endpoint_id="wh_1",
        event_id=f"evt_{number}",
        event=WebhookEvent.READY,
        body=b'{"type":"instance.ready"}',
        created_at=NOW,
        next_attempt_at=NOW + timedelta(seconds=number),
    )
    return replace(plain, **changes)


@pytest.mark.gen_test
async def test_an_endpoint_comes_back_as_it_was_stored_and_is_disabled_once(database: Database) -> None:
    endpoints = MongoWebhookEndpointRepository(database)
    await endpoints.add(endpoint(2))
    await endpoints.add(endpoint(1))
    assert await endpoints.list_enabled() == [endpoint(1), endpoint(2)]
    with pytest.raises(Conflict):
        await endpoints.add(endpoint(1))
    assert await endpoints.disable("wh_1", NOW)
    assert not await endpoints.disable("wh_1", NOW)
    assert await endpoints.list_enabled() == [endpoint(2)]
    assert await endpoints.get("wh_1") == replace(endpoint(1), disabled_at=NOW)
    assert await endpoints.get("wh_none") is None


@pytest.mark.gen_test
async def test_what_is_due_is_pending_of_that_endpoint_and_the_longest_overdue_comes_first(database: Database) -> None:
    deliveries = MongoWebhookDeliveryRepository(database)
    for each in (
        delivery(3),
        delivery(1),
        delivery(2),
        delivery(9),
        delivery(4, endpoint_id="wh_2"),
        delivery(5, state=DeliveryState.DELIVERED),
        delivery(6, state=DeliveryState.DEAD),
    ):
        await deliveries.add(each)
    due = await deliveries.due("wh_1", NOW + timedelta(seconds=8), limit=10)
    assert due == [delivery(1), delivery(2), delivery(3)]
    assert len(await deliveries.due("wh_1", NOW + timedelta(seconds=8), limit=2)) == 2


@pytest.mark.gen_test
async def test_the_same_delivery_added_by_many_at_once_is_one(database: Database) -> None:
    deliveries = MongoWebhookDeliveryRepository(database)
    await asyncio.gather(*(deliveries.add(delivery(1, outcome=str(each))) for each in range(10)))
    assert len(await deliveries.page(state=None, limit=10, after=None)) == 1


@pytest.mark.gen_test
async def test_of_two_that_record_the_same_attempt_one_is_first(database: Database) -> None:
    deliveries = MongoWebhookDeliveryRepository(database)
    await deliveries.add(delivery(1))
    ended = delivery(1, attempts=1, outcome="answered 500")
    won = await asyncio.gather(*(deliveries.replace(ended, attempted=delivery(1)) for _ in range(2)))
    assert sorted(won) == [False, True]
    assert await deliveries.get("whd_1") == ended


@pytest.mark.gen_test
async def test_an_attempt_that_began_before_a_restart_is_not_recorded(database: Database) -> None:
    deliveries = MongoWebhookDeliveryRepository(database)
    await deliveries.add(delivery(1))
    restarted = await deliveries.restart("whd_1", NOW + timedelta(seconds=5))
    ended = delivery(1, attempts=1, state=DeliveryState.DELIVERED)
    assert not await deliveries.replace(ended, attempted=delivery(1))
    assert await deliveries.get("whd_1") == restarted


@pytest.mark.gen_test
async def test_a_restarted_delivery_is_pending_from_the_first_attempt_on(database: Database) -> None:
    deliveries = MongoWebhookDeliveryRepository(database)
    await deliveries.add(delivery(1, state=DeliveryState.DEAD, attempts=10, outcome="answered 500"))
    later = NOW + timedelta(days=1)
    assert await deliveries.restart("whd_1", later) == delivery(1, next_attempt_at=later)
    assert await deliveries.restart("whd_none", later) is None


@pytest.mark.gen_test
async def test_a_page_is_in_order_and_may_be_of_one_state(database: Database) -> None:
    deliveries = MongoWebhookDeliveryRepository(database)
    for number in (1, 2, 3, 4):
        await deliveries.add(delivery(number, state=DeliveryState.DEAD if number % 2 else DeliveryState.PENDING))
    assert [each.id for each in await deliveries.page(state=None, limit=2, after="whd_1")] == ["whd_2", "whd_3"]
    dead = await deliveries.page(state=DeliveryState.DEAD, limit=10, after=None)
    assert [each.id for each in dead] == ["whd_1", "whd_3"]
