"""A change that waits for its payment (`pending_update`, https://docs.stripe.com/billing/subscriptions/pending-updates)."""

from __future__ import annotations

from controlplane.demo.fake_stripe import invoices
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.world import Wire, World

LIFETIME_SECONDS = 23 * 3600


def hold(
    world: World, subscription: Wire, prices: list[tuple[Wire, int]], invoice: Wire, *, restarts_period: bool
) -> None:
    """Keep the present items; the new ones wait for this invoice until the trial, the period or 23 hours end."""
    start, end = records.period(subscription)
    waiting = [
        {**present, "price": dict(price), "quantity": quantity}
        for present, (price, quantity) in zip(subscription["items"]["data"], prices, strict=False)
    ]
    for price, quantity in prices[len(waiting) :]:
        waiting.append(records.item(world, subscription["id"], price, quantity, start, end))
    subscription["pending_update"] = {
        "billing_cycle_anchor": None,
        "expires_at": min(world.now + LIFETIME_SECONDS, end),
        "subscription_items": waiting,
        "trial_end": None,
        "trial_from_plan": None,
    }
    world.note(subscription["id"]).update(pending_invoice=invoice["id"], pending_restarts_period=restarts_period)
    records.plan_next_look(world, subscription)


def waits_for(world: World, subscription: Wire, invoice: Wire) -> bool:
    return bool(
        subscription["pending_update"] and world.note(subscription["id"]).get("pending_invoice") == invoice["id"]
    )


def apply(world: World, subscription: Wire) -> None:
    """Paid: the change takes hold."""
    waiting = subscription["pending_update"]["subscription_items"]
    records.set_prices(world, subscription, [(one["price"], one["quantity"]) for one in waiting])
    subscription["pending_update"] = None
    note = world.note(subscription["id"])
    if note["pending_restarts_period"]:
        records.restart_period(world, subscription)
    if note.pop("pending_was_shown", False):
        world.emit("customer.subscription.pending_update_applied", subscription)


def drop(world: World, subscription: Wire, *, expired: bool) -> None:
    """The change is discarded and its invoice void: it expired, or another change took its place."""
    if not subscription["pending_update"]:
        return
    invoice = world.get("invoice", world.note(subscription["id"])["pending_invoice"])
    if invoice["status"] == "open":
        invoices.void(world, invoice)
    subscription["pending_update"] = None
    if expired:
        world.emit("customer.subscription.pending_update_expired", subscription)
