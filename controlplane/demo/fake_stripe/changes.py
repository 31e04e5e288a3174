"""`POST /v1/subscriptions/:id`: other prices, an end at the end of the period, pauses, metadata.

Other prices are prorated and charged as `proration_behavior` and `payment_behavior` say. A change that must be paid
first (`pending_if_incomplete`) takes hold at once where the card pays, and waits as `pending_update` where it does not.
"""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe import invoices, payments, pending, prorations
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.faults import StripeFault, declined
from controlplane.demo.fake_stripe.parameters import Choice, Clearable, Flag, Group, Kind, Metadata, Number, Text
from controlplane.demo.fake_stripe.subscriptions import BEHAVIORS, PRORATIONS, TRIAL_SETTINGS
from controlplane.demo.fake_stripe.world import Wire, World

UPDATE: dict[str, Kind] = {
    "items": prorations.ITEMS,
    "proration_behavior": Choice(PRORATIONS),
    "proration_date": Number(),
    "payment_behavior": Choice(BEHAVIORS),
    "cancel_at_period_end": Flag(),
    "cancel_at": Clearable(Number()),
    "cancellation_details": Group({"comment": Clearable(Text())}),
    "metadata": Metadata(),
    "default_payment_method": Text(),
    "pause_collection": Clearable(
        Group(
            {"behavior": Choice(("keep_as_draft", "mark_uncollectible", "void")), "resumes_at": Number()},
            frozenset({"behavior"}),
        )
    ),
    "trial_end": Number(),
    "trial_settings": TRIAL_SETTINGS,
    "off_session": Flag(),
}
PENDING_SUPPORTS = frozenset(
    {"items", "proration_behavior", "proration_date", "payment_behavior", "trial_end", "off_session"}
)
"""https://docs.stripe.com/billing/subscriptions/pending-updates-reference, of the parameters above."""
CANCELATION = frozenset({"cancel_at_period_end", "cancel_at"})
ENDED_SUPPORTS = frozenset({"metadata", "cancellation_details"})


def update(world: World, params: dict[str, Any], subscription_id: str) -> Wire:
    subscription = world.get("subscription", subscription_id)
    _refuse_what_cannot_be(subscription, params)
    if "items" in params:
        _change_prices(world, subscription, params)
    if "metadata" in params:
        records.merge_metadata(subscription, params["metadata"])
    if "cancellation_details" in params:
        subscription["cancellation_details"].update(params["cancellation_details"])
    if "default_payment_method" in params:
        subscription["default_payment_method"] = params["default_payment_method"]
    if "pause_collection" in params:
        paused = params["pause_collection"]
        subscription["pause_collection"] = None if paused is None else {"resumes_at": None, **paused}
    subscription["trial_settings"] = params.get("trial_settings", subscription["trial_settings"])
    if "trial_end" in params:
        _move_trial(subscription, params["trial_end"])
    _apply_cancelation(world, subscription, params)
    records.plan_next_look(world, subscription)
    return subscription


def _refuse_what_cannot_be(subscription: Wire, params: dict[str, Any]) -> None:
    if records.has_ended(subscription) and params.keys() - ENDED_SUPPORTS:
        raise StripeFault("A canceled subscription can only update its cancellation_details and metadata.")
    if params.get("payment_behavior") == "pending_if_incomplete":
        for name in sorted(params.keys() - PENDING_SUPPORTS):
            raise StripeFault(
                f"`payment_behavior=pending_if_incomplete` cannot be used together with `{name}`.", param=name
            )
    if subscription["schedule"] and params.keys() & CANCELATION:
        raise StripeFault(
            f"The subscription is managed by the subscription schedule `{subscription['schedule']}`, and updating any "
            "cancelation behavior directly is not allowed. Please update the schedule instead."
        )
    if params.keys() >= CANCELATION and params["cancel_at_period_end"]:
        raise StripeFault("You may only specify one of `cancel_at`, `cancel_at_period_end`.", param="cancel_at")


def _apply_cancelation(world: World, subscription: Wire, params: dict[str, Any]) -> None:
    if not params.keys() & CANCELATION:
        return
    at_period_end = params.get("cancel_at_period_end", False)
    cancel_at = records.period(subscription)[1] if at_period_end else params.get("cancel_at")
    subscription["cancel_at_period_end"] = at_period_end
    subscription["cancel_at"] = cancel_at
    subscription["canceled_at"] = None if cancel_at is None else world.now
    subscription["cancellation_details"]["reason"] = None if cancel_at is None else "cancellation_requested"


def _move_trial(subscription: Wire, trial_end: int) -> None:
    if subscription["status"] != "trialing":
        raise StripeFault("Only the end of a trial that runs can be moved here.", param="trial_end")
    subscription["trial_end"] = subscription["billing_cycle_anchor"] = trial_end
    records.set_period(subscription, records.period(subscription)[0], trial_end)


def _change_prices(world: World, subscription: Wire, params: dict[str, Any]) -> None:
    prices = prorations.merged(world, subscription, params["items"], "items")
    pending.drop(world, subscription, expired=False)
    restarts = prorations.restarts_period(subscription, prices)
    behavior = params.get("proration_behavior", "create_prorations")
    if subscription["status"] == "trialing":
        records.set_prices(world, subscription, prices)
        return
    lines = prorations.lines(world, subscription, prices, params.get("proration_date", world.now))
    if behavior == "none":
        lines = [line for line in lines if not _is_proration(line)]
    if not lines or not (restarts or behavior == "always_invoice"):
        _apply(world, subscription, prices, restarts)
        world.note(subscription["id"]).setdefault("waiting_lines", []).extend(lines)
        return
    _charge_now(world, subscription, prices, lines, params.get("payment_behavior", "allow_incomplete"))


def _charge_now(world: World, subscription: Wire, prices: prorations.Prices, lines: list[Wire], behavior: str) -> None:
    restarts = prorations.restarts_period(subscription, prices)
    before = subscription["latest_invoice"]
    invoice = invoices.draft(world, subscription, lines, "subscription_update")
    invoices.finalize(world, invoice)
    if behavior == "pending_if_incomplete":
        pending.hold(world, subscription, prices, invoice, restarts_period=restarts)
        if not payments.attempt(world, invoice):
            world.note(subscription["id"])["pending_was_shown"] = True
    elif behavior == "error_if_incomplete":
        pending.hold(world, subscription, prices, invoice, restarts_period=restarts)
        if not payments.attempt(world, invoice):
            pending.drop(world, subscription, expired=False)
            subscription["latest_invoice"] = before
            world.settle()
            raise declined()
    else:
        _apply(world, subscription, prices, restarts)
        if behavior == "allow_incomplete":
            payments.attempt(world, invoice)


def _apply(world: World, subscription: Wire, prices: prorations.Prices, restarts: bool) -> None:
    records.set_prices(world, subscription, prices)
    if restarts:
        records.restart_period(world, subscription)


def _is_proration(line: Wire) -> bool:
    return bool(line["parent"]["subscription_item_details"]["proration"])
