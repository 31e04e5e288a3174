"""Subscriptions as they are made, read, canceled and resumed; how they are changed is in `changes`."""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe import customers, invoices, payments
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.faults import StripeFault, declined
from controlplane.demo.fake_stripe.listing import PAGE, page
from controlplane.demo.fake_stripe.parameters import Choice, Flag, Group, Kind, ListOf, Metadata, Number, Text
from controlplane.demo.fake_stripe.world import Wire, World

DAY = 86_400
BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete")
PRORATIONS = ("always_invoice", "create_prorations", "none")
TRIAL_SETTINGS = Group(
    {
        "end_behavior": Group(
            {"missing_payment_method": Choice(("cancel", "create_invoice", "pause"))},
            frozenset({"missing_payment_method"}),
        )
    },
    frozenset({"end_behavior"}),
)
CREATE: dict[str, Kind] = {
    "customer": Text(),
    "items": ListOf(Group({"price": Text(), "quantity": Number(0), "metadata": Metadata()}), most=20),
    "metadata": Metadata(),
    "trial_period_days": Number(1, 730),
    "trial_end": Number(),
    "trial_settings": TRIAL_SETTINGS,
    "payment_behavior": Choice(BEHAVIORS),
    "default_payment_method": Text(),
    "off_session": Flag(),
}
STATUSES = (
    *("active", "all", "canceled", "ended", "incomplete", "incomplete_expired", "past_due", "paused", "trialing"),
    "unpaid",
)
LIST: dict[str, Kind] = {**PAGE, "customer": Text(), "price": Text(), "status": Choice(STATUSES)}
CANCEL: dict[str, Kind] = {"invoice_now": Flag(), "prorate": Flag()}
RESUME: dict[str, Kind] = {
    "billing_cycle_anchor": Choice(("now", "unchanged")),
    "proration_behavior": Choice(PRORATIONS),
}


def create(world: World, params: dict[str, Any], _: str) -> Wire:
    customers.live(world, params["customer"], "customer")
    trial_end = params.get("trial_end")
    if "trial_period_days" in params:
        trial_end = world.now + params["trial_period_days"] * DAY
    return start(
        world,
        customer_id=params["customer"],
        prices=records.read_prices(world, params["items"], "items"),
        trial_end=trial_end,
        metadata=params.get("metadata") or {},
        card=params.get("default_payment_method"),
        trial_settings=params.get("trial_settings"),
        behavior=params.get("payment_behavior", "allow_incomplete"),
    )


def start(
    world: World,
    *,
    customer_id: str,
    prices: list[tuple[Wire, int]],
    trial_end: int | None,
    metadata: dict[str, str],
    card: str | None,
    trial_settings: Wire | None = None,
    behavior: str = "allow_incomplete",
    payment: str = "attempted",
) -> Wire:
    """A new subscription with its first invoice.

    `card` names its payment method. `payment`: the invoice's is `attempted` now, was `made` already, or comes `later`,
    while the bank is at it. Raises StripeFault 402 where `behavior` is `error_if_incomplete` and the card declines.
    """
    subscription = records.shape(world, customer_id, prices, trial_end=trial_end)
    subscription["default_payment_method"] = world.new_id("payment_method") if card else None
    subscription["trial_settings"] = trial_settings or subscription["trial_settings"]
    records.merge_metadata(subscription, metadata)
    customer = world.get("customer", customer_id, "customer")
    customer["currency"] = customer["currency"] or subscription["currency"]
    if trial_end is None and behavior == "error_if_incomplete":
        if not _pays(world, subscription):
            raise declined()
        payment = "made"
    world.add(subscription)
    if trial_end is None and payment != "later":
        subscription["status"] = "incomplete"
    invoice = invoices.draft(
        world,
        subscription,
        invoices.full_lines(world, subscription, trial=trial_end is not None),
        "subscription_create",
    )
    world.announce("customer.subscription.created", subscription)
    invoices.finalize(world, invoice)
    if payment == "made":
        payments.settle_paid(world, invoice)
    elif payment == "attempted" and (behavior != "default_incomplete" or not invoice["amount_due"]):
        payments.attempt(world, invoice)
    records.plan_next_look(world, subscription)
    return subscription


def retrieve(world: World, _: dict[str, Any], subscription_id: str) -> Wire:
    return world.get("subscription", subscription_id)


def list_(world: World, params: dict[str, Any], _: str) -> Wire:
    status = params.get("status")

    def keep(one: Wire) -> bool:
        if params.get("customer") not in (None, one["customer"]):
            return False
        if "price" in params and params["price"] not in [item["price"]["id"] for item in one["items"]["data"]]:
            return False
        if status is None:
            return not records.has_ended(one)
        return status == "all" or status == one["status"] or (status == "ended" and records.has_ended(one))

    return page(world, "subscription", params, "/v1/subscriptions", keep)


def cancel(world: World, _: dict[str, Any], subscription_id: str) -> Wire:
    """At once."""
    subscription = world.get("subscription", subscription_id)
    if records.has_ended(subscription):
        raise StripeFault(f"No such subscription: '{subscription_id}'", status=404, code="resource_missing", param="id")
    records.end(world, subscription, reason="cancellation_requested")
    return subscription


def resume(world: World, params: dict[str, Any], subscription_id: str) -> Wire:
    """Out of `paused`: a period begins, and its invoice is charged."""
    subscription = world.get("subscription", subscription_id)
    if subscription["status"] != "paused":
        raise StripeFault("Only a paused subscription can be resumed.", param="id")
    subscription["status"] = "active"
    if params.get("billing_cycle_anchor", "now") == "now":
        records.restart_period(world, subscription)
        invoice = invoices.draft(world, subscription, invoices.full_lines(world, subscription), "subscription_cycle")
        invoices.finalize(world, invoice)
        payments.attempt(world, invoice)
    world.emit("customer.subscription.resumed", subscription)
    records.plan_next_look(world, subscription)
    return subscription


def _pays(world: World, subscription: Wire) -> bool:
    return payments.has_card(world, subscription) and world.cards.answer(subscription["customer"]) == "succeed"
