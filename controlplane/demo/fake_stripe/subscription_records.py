"""A subscription as it stands: its shape, its items and period, and how it ends. What moves it is in other files."""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe import catalog
from controlplane.demo.fake_stripe.calendar import period_end
from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.listing import listed
from controlplane.demo.fake_stripe.world import Wire, World

ENDED = ("canceled", "incomplete_expired")
ISSUER = {"type": "self"}
BILLING_MODE = {"flexible": {"proration_discounts": "included"}, "type": "flexible"}


def shape(world: World, customer_id: str, prices: list[tuple[Wire, int]], *, trial_end: int | None) -> Wire:
    """A new subscription, not stored yet. `prices` pairs each price with its quantity."""
    subscription_id = world.new_id("subscription")
    anchor = trial_end or world.now
    first = prices[0][0]
    end = trial_end or _period_end(anchor, world.now, first)
    items = [item(world, subscription_id, price, quantity, world.now, end) for price, quantity in prices]
    return {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": None,
        "billing_mode": dict(BILLING_MODE),
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": world.now,
        "currency": first["currency"],
        "customer": customer_id,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": dict(ISSUER)},
        "items": listed(items, f"/v1/subscription_items?subscription={subscription_id}"),
        "latest_invoice": None,
        "livemode": False,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": world.now,
        "status": "trialing" if trial_end else "active",
        "test_clock": None,
        "transfer_data": None,
        "trial_end": trial_end,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": world.now if trial_end else None,
    }


def item(world: World, subscription_id: str, price: Wire, quantity: int, start: int, end: int) -> Wire:
    return {
        "id": world.new_id("subscription_item"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": world.now,
        "current_period_end": end,
        "current_period_start": start,
        "discounts": [],
        "metadata": {},
        "price": dict(price),
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def read_prices(world: World, items: list[dict[str, Any]], param: str) -> list[tuple[Wire, int]]:
    """The prices that a request's items name, with their quantities. Raises StripeFault."""
    prices = []
    for index, one in enumerate(items):
        if "price" not in one:
            raise StripeFault(
                f"Missing required param: {param}[{index}][price].",
                code="parameter_missing",
                param=f"{param}[{index}][price]",
            )
        prices.append((catalog.sellable(world, one["price"], f"{param}[{index}][price]"), one.get("quantity", 1)))
    if not prices:
        raise StripeFault(f"Missing required param: {param}.", code="parameter_missing", param=param)
    rhythm = {(price["currency"], *interval(price)) for price, _ in prices}
    if len(rhythm) > 1:
        raise StripeFault("All prices on a subscription must have the same currency and interval.", param=param)
    return prices


def interval(price: Wire) -> tuple[str, int]:
    recurring = price["recurring"]
    return recurring["interval"], recurring["interval_count"]


def period(subscription: Wire) -> tuple[int, int]:
    first = subscription["items"]["data"][0]
    return first["current_period_start"], first["current_period_end"]


def set_period(subscription: Wire, start: int, end: int) -> None:
    for one in subscription["items"]["data"]:
        one["current_period_start"], one["current_period_end"] = start, end


def next_period(subscription: Wire) -> tuple[int, int]:
    """The period after the present one."""
    start = period(subscription)[1]
    return start, _period_end(subscription["billing_cycle_anchor"], start, subscription["items"]["data"][0]["price"])


def restart_period(world: World, subscription: Wire) -> None:
    """A period of the present prices begins now, and the later ones follow it."""
    subscription["billing_cycle_anchor"] = world.now
    price = subscription["items"]["data"][0]["price"]
    set_period(subscription, world.now, _period_end(world.now, world.now, price))
    plan_next_look(world, subscription)


def set_prices(world: World, subscription: Wire, prices: list[tuple[Wire, int]]) -> None:
    """Replace what is bought, in the present period. An item keeps its id in its place."""
    start, end = period(subscription)
    present = subscription["items"]["data"]
    renewed = []
    for index, (price, quantity) in enumerate(prices):
        if index < len(present):
            renewed.append({**present[index], "price": dict(price), "quantity": quantity})
        else:
            renewed.append(item(world, subscription["id"], price, quantity, start, end))
    subscription["items"]["data"] = renewed


def has_ended(subscription: Wire) -> bool:
    return subscription["status"] in ENDED


def plan_next_look(world: World, subscription: Wire) -> None:
    """Alarms for everything that time alone will bring."""
    if has_ended(subscription):
        return
    world.wake(period(subscription)[1], subscription)
    world.wake(subscription["cancel_at"], subscription)
    if subscription["status"] == "incomplete":
        world.wake(subscription["created"] + 23 * 3600, subscription)
    if subscription["trial_end"] and subscription["status"] == "trialing":
        world.wake(subscription["trial_end"] - 3 * 86_400, subscription)
    if subscription["pending_update"]:
        world.wake(subscription["pending_update"]["expires_at"], subscription)
    if subscription["pause_collection"]:
        world.wake(subscription["pause_collection"]["resumes_at"], subscription)


def end(world: World, subscription: Wire, *, reason: str, status: str = "canceled") -> None:
    """It is over now. An attached schedule ends with it: aborted where payments failed, canceled else."""
    subscription["status"] = status
    subscription["ended_at"] = world.now
    if status == "canceled":
        subscription["canceled_at"] = subscription["canceled_at"] or world.now
        subscription["cancellation_details"]["reason"] = subscription["cancellation_details"]["reason"] or reason
    subscription["pending_update"] = None
    if subscription["schedule"]:
        schedule = world.get("subscription_schedule", subscription["schedule"])
        schedule.update(status="canceled", canceled_at=world.now, current_phase=None, subscription=None)
        subscription["schedule"] = None
        world.announce(
            "subscription_schedule.aborted" if reason == "payment_failed" else "subscription_schedule.canceled",
            schedule,
        )
    if status == "canceled":
        world.announce("customer.subscription.deleted", subscription)


def merge_metadata(wire: Wire, given: dict[str, str] | None) -> None:
    """Keys are added and replaced; an empty value removes its key, None all of them."""
    merged = {**wire["metadata"], **given} if given is not None else {}
    wire["metadata"] = {key: value for key, value in merged.items() if value}


def _period_end(anchor: int, start: int, price: Wire) -> int:
    name, count = interval(price)
    return anchor if anchor > start else period_end(anchor, start, name, count)
