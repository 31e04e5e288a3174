"""What time does: trials end, periods renew, drafts become invoices, payments are tried again, what waits expires."""

from __future__ import annotations

import heapq

from controlplane.demo.fake_stripe import checkout, invoices, payments, pending, schedules
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.world import Wire, World

DAY = 86_400
INCOMPLETE_SECONDS = 23 * 3600


def advance(world: World, to: int) -> None:
    """Let time pass until `to`: everything that is due happens in order, each at its own moment."""
    while world.alarms and world.alarms[0][0] <= to:
        at, _, kind, object_id = heapq.heappop(world.alarms)
        world.now = max(world.now, at)
        wire = world.get(kind, object_id)
        if kind == "subscription":
            _look_at_subscription(world, wire)
        elif kind == "invoice":
            _look_at_invoice(world, wire)
        elif kind == "checkout.session":
            checkout.look(world, wire)
        world.settle()
    world.now = max(world.now, to)


def _look_at_subscription(world: World, subscription: Wire) -> None:
    if records.has_ended(subscription):
        return
    if subscription["status"] == "incomplete":
        _expire_incomplete(world, subscription)
        return
    waiting = subscription["pending_update"]
    if waiting and world.now >= waiting["expires_at"]:
        pending.drop(world, subscription, expired=True)
    paused = subscription["pause_collection"]
    if paused and paused["resumes_at"] and world.now >= paused["resumes_at"]:
        subscription["pause_collection"] = None
    _announce_trial_end(world, subscription)
    if subscription["cancel_at"] and world.now >= subscription["cancel_at"]:
        records.end(world, subscription, reason="cancellation_requested")
    elif subscription["status"] != "paused" and world.now >= records.period(subscription)[1]:
        _renew(world, subscription)
        records.plan_next_look(world, subscription)


def _expire_incomplete(world: World, subscription: Wire) -> None:
    if world.now < subscription["created"] + INCOMPLETE_SECONDS:
        return
    invoice = world.get("invoice", subscription["latest_invoice"])
    if invoice["status"] == "open":
        invoices.void(world, invoice)
    records.end(world, subscription, reason="payment_failed", status="incomplete_expired")


def _announce_trial_end(world: World, subscription: Wire) -> None:
    """Three days before, or at once in a shorter trial."""
    note = world.note(subscription["id"])
    trial_end = subscription["trial_end"]
    if (
        subscription["status"] == "trialing"
        and trial_end - 3 * DAY <= world.now < trial_end
        and note.get("trial_end_told") != trial_end
    ):
        note["trial_end_told"] = trial_end
        world.emit("customer.subscription.trial_will_end", subscription)


def _renew(world: World, subscription: Wire) -> None:
    rhythm = records.interval(subscription["items"]["data"][0]["price"])
    schedules.step(world, subscription)
    if records.has_ended(subscription):
        return
    if subscription["status"] == "trialing" and not _leave_trial(world, subscription):
        return
    if records.interval(subscription["items"]["data"][0]["price"]) != rhythm:
        subscription["billing_cycle_anchor"] = records.period(subscription)[1]
    records.set_period(subscription, *records.next_period(subscription))
    lines = invoices.full_lines(world, subscription) + world.note(subscription["id"]).pop("waiting_lines", [])
    invoice = invoices.draft(world, subscription, lines, "subscription_cycle")
    if subscription["status"] == "unpaid":
        invoice["auto_advance"] = False
    else:
        invoices.finalizes_at(world, invoice)


def _leave_trial(world: World, subscription: Wire) -> bool:
    """Whether a paid period follows."""
    behavior = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    if behavior != "create_invoice" and not payments.has_card(world, subscription):
        if behavior == "cancel":
            records.end(world, subscription, reason="payment_failed")
        else:
            subscription["status"] = "paused"
            world.emit("customer.subscription.paused", subscription)
        return False
    subscription["status"] = "active"
    return True


def _look_at_invoice(world: World, invoice: Wire) -> None:
    subscription = payments.subscription_of(world, invoice)
    if not invoice["auto_advance"] or (subscription is not None and records.has_ended(subscription)):
        return
    if invoice["status"] == "draft" and world.now >= invoice["automatically_finalizes_at"]:
        if subscription is not None and subscription["pause_collection"]:
            _set_aside(world, invoice, subscription["pause_collection"]["behavior"])
            return
        invoices.finalize(world, invoice)
        payments.attempt(world, invoice)
    elif (
        invoice["status"] == "open" and invoice["next_payment_attempt"] and world.now >= invoice["next_payment_attempt"]
    ):
        payments.attempt(world, invoice)


def _set_aside(world: World, invoice: Wire, behavior: str) -> None:
    """Collection is paused."""
    if behavior == "keep_as_draft":
        invoice["auto_advance"] = False
        return
    invoices.finalize(world, invoice)
    if behavior == "void":
        invoices.void(world, invoice)
    else:
        invoice.update(status="uncollectible", auto_advance=False)
        invoice["status_transitions"]["marked_uncollectible_at"] = world.now
        world.emit("invoice.marked_uncollectible", invoice)
