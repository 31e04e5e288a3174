"""Paying an invoice: what the card says, the retries that follow, and what both do to the subscription.

A customer without a card cannot pay. What a card answers is in `cards`.
"""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe import invoices, pending
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.faults import StripeFault, declined
from controlplane.demo.fake_stripe.parameters import Flag, Kind, Text
from controlplane.demo.fake_stripe.world import Wire, World

DAY = 86_400
PAY: dict[str, Kind] = {"payment_method": Text(), "off_session": Flag(), "paid_out_of_band": Flag()}


def has_card(world: World, subscription: Wire) -> bool:
    customer = world.get("customer", subscription["customer"], "customer")
    return bool(
        subscription["default_payment_method"]
        or (not customer.get("deleted") and customer["invoice_settings"]["default_payment_method"])
    )


def pay(world: World, params: dict[str, Any], invoice_id: str) -> Wire:
    """`POST /v1/invoices/:id/pay`. Raises StripeFault 402 when the card declines."""
    invoice = world.get("invoice", invoice_id, "invoice")
    if invoice["status"] == "draft":
        invoices.finalize(world, invoice)
    if invoice["status"] != "open":
        raise StripeFault(f"Invoice is already {invoice['status']}", param="invoice")
    if params.get("paid_out_of_band"):
        settle_paid(world, invoice)
    elif not attempt(world, invoice, card=bool(params.get("payment_method"))):
        world.settle()
        raise declined()
    return invoice


def attempt(world: World, invoice: Wire, *, card: bool = False) -> bool:
    """Charge an open invoice. `card`: a card is given with it, whether or not one is on file."""
    subscription = subscription_of(world, invoice)
    outcome = "succeed"
    if invoice["amount_due"]:
        outcome = world.cards.answer(invoice["customer"])
        if not card and subscription is not None and not has_card(world, subscription):
            outcome = "decline"
    if outcome == "succeed":
        settle_paid(world, invoice)
        return True
    _settle_failed(world, invoice, subscription, outcome)
    return False


def fail(world: World, invoice: Wire) -> None:
    """An attempt that was under way has failed."""
    _settle_failed(world, invoice, subscription_of(world, invoice), "decline")


def settle_paid(world: World, invoice: Wire) -> None:
    """The money is there: the subscription stands again, and a change that waited for it takes hold."""
    invoices.mark_paid(world, invoice)
    subscription = subscription_of(world, invoice)
    if subscription is None or records.has_ended(subscription):
        return
    world.get("customer", subscription["customer"], "customer")["delinquent"] = False
    if pending.waits_for(world, subscription, invoice):
        pending.apply(world, subscription)
    if subscription["status"] == "incomplete" or (
        subscription["status"] in ("past_due", "unpaid") and not _owes(world, subscription)
    ):
        subscription["status"] = "active"
        records.plan_next_look(world, subscription)


def subscription_of(world: World, invoice: Wire) -> Wire | None:
    subscription_id = invoices.subscription_id(invoice)
    return world.get("subscription", subscription_id) if subscription_id else None


def _owes(world: World, subscription: Wire) -> bool:
    return any(
        invoice["status"] == "open" and invoices.subscription_id(invoice) == subscription["id"]
        for invoice in world.objects.get("invoice", {}).values()
        if invoice["customer"] == subscription["customer"]
    )


def _settle_failed(world: World, invoice: Wire, subscription: Wire | None, outcome: str) -> None:
    invoice["attempted"] = True
    invoice["attempt_count"] += 1
    waits = subscription is not None and (
        pending.waits_for(world, subscription, invoice) or subscription["status"] == "incomplete"
    )
    over = False
    if not waits:
        over = _plan_retry(world, invoice)
        world.get("customer", invoice["customer"], "customer")["delinquent"] = True
    world.emit("invoice.payment_failed", invoice)
    if outcome == "action":
        world.emit("invoice.payment_action_required", invoice)
    if subscription is None or waits or records.has_ended(subscription):
        return
    if over:
        _give_up(world, invoice, subscription)
    elif subscription["status"] in ("active", "trialing"):
        subscription["status"] = "past_due"


def _plan_retry(world: World, invoice: Wire) -> bool:
    """Whether there is no further try."""
    first = world.note(invoice["id"]).setdefault("first_failed_at", world.now)
    later = [first + day * DAY for day in world.dunning.retry_days if first + day * DAY > world.now]
    invoice["next_payment_attempt"] = later[0] if later else None
    world.wake(invoice["next_payment_attempt"], invoice)
    return not later


def _give_up(world: World, invoice: Wire, subscription: Wire) -> None:
    invoice["auto_advance"] = False
    if world.dunning.end == "canceled":
        records.end(world, subscription, reason="payment_failed")
    else:
        subscription["status"] = world.dunning.end
