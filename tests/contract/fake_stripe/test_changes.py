"""Upgrades, downgrades, cancelations and schedules in the fake."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.fake_stripe_process import LARGE, SMALL, SMALL_YEARLY, FakeStripeProcess
from tests.stripe_driver import item_of, now, schedule_for, subscribed, types, upgrade, visit

DAY = 86_400


def test_an_upgrade_is_prorated_by_the_second_as_its_preview_said(
    fake: FakeStripeProcess, client: stripe.StripeClient
) -> None:
    made = subscribed(client)
    item = item_of(made)
    length = item.current_period_end - item.current_period_start
    fake.advance(seconds=length // 2)
    left = (item.current_period_end - now(fake)) / length
    preview = client.v1.invoices.create_preview(
        {
            "subscription": made.id,
            "subscription_details": {
                "items": [{"id": item.id, "price": LARGE}],
                "proration_behavior": "always_invoice",
            },
        }
    )
    assert preview.amount_due == round(2900 * left) - round(900 * left)
    changed = upgrade(client, made)
    assert changed.pending_update is None
    assert item_of(changed).price.id == LARGE
    assert item_of(changed).current_period_end == item.current_period_end
    assert changed.latest_invoice.amount_paid == preview.amount_due  # type: ignore[union-attr]


def test_an_unpaid_upgrade_waits_as_a_pending_update(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    made = subscribed(client)
    fake.control("cards", {"customer": str(made.customer), "outcome": "action", "times": 1})
    changed = upgrade(client, made)
    invoice: Any = changed.latest_invoice
    assert (changed.status, item_of(changed).price.id, invoice.status) == ("active", SMALL, "open")
    assert changed.pending_update is not None
    assert changed.pending_update.subscription_items[0].price.id == LARGE  # type: ignore[index]
    assert "invoice.payment_action_required" in types(client, invoice.id)
    visit(invoice.hosted_invoice_url, "pay")
    applied = client.v1.subscriptions.retrieve(made.id)
    assert (applied.pending_update, item_of(applied).price.id) == (None, LARGE)
    assert "customer.subscription.pending_update_applied" in types(client, made.id)


def test_a_pending_update_expires_with_its_invoice(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    made = subscribed(client)
    fake.control("cards", {"customer": str(made.customer), "outcome": "decline", "times": 1})
    changed = upgrade(client, made)
    fake.advance(seconds=23 * 3600)
    left = client.v1.subscriptions.retrieve(made.id)
    assert (left.pending_update, item_of(left).price.id) == (None, SMALL)
    assert client.v1.invoices.retrieve(changed.latest_invoice.id).status == "void"  # type: ignore[union-attr]
    assert "customer.subscription.pending_update_expired" in types(client, made.id)


@pytest.mark.parametrize("other", [{"metadata": {"a": "b"}}, {"cancel_at_period_end": True}])
def test_pending_updates_go_with_few_other_parameters(client: stripe.StripeClient, other: Any) -> None:
    made = subscribed(client)
    with pytest.raises(stripe.InvalidRequestError, match="pending_if_incomplete"):
        client.v1.subscriptions.update(made.id, other | {"payment_behavior": "pending_if_incomplete"})


def test_another_interval_begins_a_new_period_at_once(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    made = subscribed(client)
    fake.advance(days=5)
    changed = upgrade(client, made, SMALL_YEARLY)
    assert item_of(changed).current_period_start == now(fake)
    assert item_of(changed).current_period_end > now(fake) + 360 * DAY
    assert 9000 > changed.latest_invoice.amount_paid > 9000 - 900  # type: ignore[union-attr]


def test_a_cancelation_at_the_period_end_can_be_taken_back(
    fake: FakeStripeProcess, client: stripe.StripeClient
) -> None:
    made = subscribed(client)
    ending = client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    assert (ending.status, ending.cancel_at) == ("active", item_of(made).current_period_end)
    kept = client.v1.subscriptions.update(made.id, {"cancel_at_period_end": False})
    assert (kept.cancel_at, kept.canceled_at) == (None, None)
    client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    fake.control("clock", {"advanceTo": item_of(made).current_period_end})
    assert client.v1.subscriptions.retrieve(made.id).status == "canceled"
    assert types(client, made.id)[-1] == "customer.subscription.deleted"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.subscriptions.update(made.id, {"cancel_at_period_end": False})


def test_a_scheduled_downgrade_takes_hold_at_the_period_end(
    fake: FakeStripeProcess, client: stripe.StripeClient
) -> None:
    made = subscribed(client, LARGE)
    schedule = schedule_for(client, made, SMALL)
    assert client.v1.subscriptions.retrieve(made.id).schedule == schedule.id
    fake.control("clock", {"advanceTo": item_of(made).current_period_end + 3600})
    smaller = client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]})
    assert item_of(smaller).price.id == SMALL
    assert smaller.latest_invoice.total == 900  # type: ignore[union-attr]
    fake.control("clock", {"advanceTo": item_of(smaller).current_period_end + 3600})
    free = client.v1.subscriptions.retrieve(made.id)
    assert (free.schedule, item_of(free).price.id, free.status) == (None, SMALL, "active")
    assert "subscription_schedule.released" in types(client, schedule.id)


def test_a_released_schedule_leaves_the_subscription_as_it_is(
    fake: FakeStripeProcess, client: stripe.StripeClient
) -> None:
    made = subscribed(client, LARGE)
    schedule = schedule_for(client, made, SMALL)
    with pytest.raises(stripe.InvalidRequestError, match="already attached"):
        client.v1.subscription_schedules.create({"from_subscription": made.id})
    with pytest.raises(stripe.InvalidRequestError, match="managed by the subscription schedule"):
        client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    released = client.v1.subscription_schedules.release(schedule.id)
    assert (released.status, released.released_subscription) == ("released", made.id)
    with pytest.raises(stripe.InvalidRequestError, match="released"):
        client.v1.subscription_schedules.release(schedule.id)
    fake.control("clock", {"advanceTo": item_of(made).current_period_end + 3600})
    assert item_of(client.v1.subscriptions.retrieve(made.id)).price.id == LARGE


@pytest.mark.parametrize(("dunned", "event"), [(True, "aborted"), (False, "canceled")])
def test_a_schedule_ends_with_its_subscription(
    fake: FakeStripeProcess, client: stripe.StripeClient, dunned: bool, event: str
) -> None:
    fake.control("dunning", {"retryDays": [1], "end": "canceled"})
    made = subscribed(client, LARGE)
    schedule = schedule_for(client, made, SMALL)
    if dunned:
        fake.control("cards", {"customer": str(made.customer), "outcome": "decline"})
        fake.control("clock", {"advanceTo": item_of(made).current_period_end + 3600 + DAY})
    else:
        client.v1.subscriptions.cancel(made.id)
    assert client.v1.subscriptions.retrieve(made.id).status == "canceled"
    assert types(client, schedule.id)[-1] == f"subscription_schedule.{event}"
