"""One walk through everything that the fake Stripe offers, so that each of its answers and events can be looked at."""

from __future__ import annotations

from typing import Any

import stripe

from tests.fake_stripe_process import LARGE, SMALL, SMALL_YEARLY, FakeStripeProcess
from tests.stripe_driver import customer, item_of, order, schedule_for, subscribed, upgrade

DAY = 86_400

# What the control plane acts on.
HANDLED_EVENTS = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
        "customer.deleted",
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.resumed",
        "customer.subscription.trial_will_end",
        "customer.subscription.pending_update_applied",
        "customer.subscription.pending_update_expired",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_action_required",
        "subscription_schedule.released",
        "subscription_schedule.canceled",
        "subscription_schedule.aborted",
    }
)


def walk(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    """Takes a fake whose time stands still."""
    v1 = client.v1
    _catalog_and_customers(client)
    _checkouts(fake, client)
    _a_subscription_with_everything(fake, client)
    _schedules(fake, client)
    _ends(fake, client)
    for listed in (v1.events.list({"limit": 100}), v1.events.list({"type": "invoice.*", "delivery_success": False})):
        v1.events.retrieve(listed.data[0].id)
    _refusals(fake, client)


def _catalog_and_customers(client: stripe.StripeClient) -> None:
    v1 = client.v1
    product = v1.products.create({"name": "Huge", "metadata": {"tier": "3"}})
    v1.prices.create(
        {"currency": "eur", "unit_amount": 9900, "product": product.id, "recurring": {"interval": "month"}}
    )
    v1.prices.retrieve(SMALL, {"expand": ["product"]})
    v1.prices.list({"active": True, "limit": 2})
    owner = customer(client, name="Ada")
    v1.customers.update(owner, {"name": "Ada L.", "description": "first of all"})
    v1.customers.retrieve(owner, {"expand": ["subscriptions"]})
    v1.customers.list({"limit": 1, "email": "ada@example.org"})
    v1.customers.search({"query": "metadata['user_id']:'usr_1' AND email:'ada@example.org'"})


def _checkouts(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    sessions = client.v1.checkout.sessions
    paid = sessions.create(
        order(
            customer(client),
            client_reference_id="usr_1",
            metadata={"user_id": "usr_1"},
            subscription_data={"metadata": {"user_id": "usr_1"}, "trial_period_days": 14},
            expand=["line_items", "customer"],
        )
    )
    fake.pay(paid.id)
    sessions.retrieve(paid.id, {"expand": ["subscription", "line_items"]})
    sessions.line_items.list(paid.id)
    for answer in ("bank_paid", "bank_failed"):
        slow = sessions.create(order(customer(client)))
        fake.control(f"checkout/{slow.id}", {"outcome": "bank_debit"})
        fake.control(f"checkout/{slow.id}", {"outcome": answer})
    sessions.expire(sessions.create(order(customer(client))).id)
    sessions.list({"limit": 5, "status": "complete"})


def _a_subscription_with_everything(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    v1 = client.v1
    made = subscribed(client, trial_period_days=14, metadata={"user_id": "usr_1"})
    owner = str(made.customer)
    fake.advance(days=14, seconds=3600)
    details: Any = {"items": [{"id": item_of(made).id, "price": LARGE}], "proration_behavior": "always_invoice"}
    v1.invoices.create_preview({"subscription": made.id, "subscription_details": details})
    v1.invoices.create_preview({"customer": owner, "subscription": made.id})
    fake.control("cards", {"customer": owner, "outcome": "action", "times": 2})
    waiting = upgrade(client, made)
    fake.control(f"pay-invoice/{_invoice_id(waiting)}")
    fake.control("cards", {"customer": owner, "outcome": "action", "times": 1})
    upgrade(client, v1.subscriptions.retrieve(made.id), SMALL_YEARLY)
    fake.advance(days=1)
    v1.subscriptions.update(made.id, {"cancel_at_period_end": True, "cancellation_details": {"comment": "too dear"}})
    v1.subscriptions.update(made.id, {"cancel_at_period_end": False, "metadata": {"note": "stays"}})
    v1.subscriptions.update(made.id, {"pause_collection": {"behavior": "void"}})
    fake.advance(days=32)
    v1.subscriptions.update(made.id, {"pause_collection": ""})
    v1.subscriptions.retrieve(made.id, {"expand": ["customer", "latest_invoice", "schedule"]})
    v1.subscriptions.list({"status": "all", "limit": 100, "expand": ["data.latest_invoice", "data.schedule"]})
    v1.invoices.list({"customer": owner, "limit": 20})
    v1.billing_portal.sessions.create({"customer": owner, "return_url": "https://portal.example/"})
    fake.control(f"pause/{made.id}")
    at_once: Any = {"billing_cycle_anchor": "now"}
    v1.subscriptions.resume(made.id, at_once)


def _schedules(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    schedules = client.v1.subscription_schedules
    released = schedule_for(client, subscribed(client, LARGE), SMALL)
    schedules.release(released.id)
    schedules.retrieve(released.id)
    schedules.cancel(schedule_for(client, subscribed(client, LARGE), SMALL).id)
    trial = subscribed(client, LARGE, trial_period_days=7)
    kept = schedules.create({"from_subscription": trial.id, "metadata": {"why": "downgrade"}})
    client.v1.subscriptions.retrieve(trial.id, {"expand": ["schedule"]})
    schedules.list({"customer": str(kept.customer)})
    fake.control("dunning", {"retryDays": [1], "end": "canceled"})
    unpaid = subscribed(client, LARGE)
    schedule_for(client, unpaid, SMALL)
    fake.control("cards", {"customer": str(unpaid.customer), "outcome": "decline"})
    fake.advance(days=34)


def _ends(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    v1 = client.v1
    incomplete = v1.subscriptions.create(
        {"customer": customer(client), "items": [{"price": SMALL}], "payment_behavior": "default_incomplete"}
    )
    v1.invoices.pay(str(incomplete.latest_invoice), {"payment_method": "pm_card_visa", "expand": ["customer"]})
    v1.invoices.retrieve(str(incomplete.latest_invoice), {"expand": ["parent.subscription_details.subscription"]})
    v1.subscriptions.create({"customer": customer(client), "items": [{"price": SMALL}]})
    v1.subscriptions.cancel(incomplete.id)
    v1.customers.delete(str(subscribed(client).customer))
    fake.advance(days=1)


def _refusals(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    """One of each kind of error."""
    v1 = client.v1
    fake.control("cards", {"outcome": "decline", "times": 1})
    unpaid = v1.subscriptions.create({"customer": customer(client), "items": [{"price": SMALL}]})
    v1.customers.create({"name": "first"}, {"idempotency_key": "scene"})
    fake.control("mischief", {"kind": "error", "status": 429, "path": "/v1/prices"})
    fake.control("mischief", {"kind": "error", "status": 500, "path": "/v1/events"})
    refused = (
        lambda: v1.subscriptions.retrieve("sub_nothing"),
        lambda: v1.customers.create({"colour": "red"}),  # type: ignore[arg-type]
        lambda: v1.customers.create({"name": "second"}, {"idempotency_key": "scene"}),
        lambda: v1.invoices.pay(str(unpaid.latest_invoice)),
        lambda: v1.prices.list(),
        lambda: v1.events.list(),
    )
    for call in refused:
        try:
            call()
        except stripe.StripeError:
            continue
        raise AssertionError("this call should have been refused")


def _invoice_id(subscription: stripe.Subscription) -> str:
    invoice: Any = subscription.latest_invoice
    return str(invoice.id)
