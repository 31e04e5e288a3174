"""Subscription schedules: later prices written down today (https://docs.stripe.com/billing/subscriptions/subscription-schedules).

Offered: a schedule made from a subscription, whose later phases change prices without proration at a period's end.
"""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.calendar import after
from controlplane.demo.fake_stripe.catalog import INTERVALS
from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.listing import PAGE, page
from controlplane.demo.fake_stripe.parameters import Choice, Flag, Group, Kind, ListOf, Metadata, Number, Text
from controlplane.demo.fake_stripe.subscriptions import PRORATIONS
from controlplane.demo.fake_stripe.world import Wire, World

PHASE = Group(
    {
        "items": ListOf(Group({"price": Text(), "quantity": Number(0), "metadata": Metadata()}), most=20),
        "start_date": Number(),
        "end_date": Number(),
        "duration": Group({"interval": Choice(INTERVALS), "interval_count": Number(1)}, frozenset({"interval"})),
        "proration_behavior": Choice(PRORATIONS),
        "trial_end": Number(),
        "metadata": Metadata(),
    },
    frozenset({"items"}),
)
CREATE: dict[str, Kind] = {"from_subscription": Text(), "metadata": Metadata()}
UPDATE: dict[str, Kind] = {
    "phases": ListOf(PHASE, most=10),
    "end_behavior": Choice(("cancel", "none", "release", "renew")),
    "proration_behavior": Choice(PRORATIONS),
    "metadata": Metadata(),
}
RELEASE: dict[str, Kind] = {"preserve_cancel_date": Flag()}
CANCEL: dict[str, Kind] = {"invoice_now": Flag(), "prorate": Flag()}
LIST: dict[str, Kind] = {**PAGE, "customer": Text(), "scheduled": Flag()}
LIVE = ("active", "not_started")


def create(world: World, params: dict[str, Any], _: str) -> Wire:
    subscription = world.get("subscription", params["from_subscription"], "from_subscription")
    if subscription["schedule"]:
        raise StripeFault(
            f"You cannot migrate a subscription that is already attached to a schedule: `{subscription['schedule']}`.",
            param="from_subscription",
        )
    if records.has_ended(subscription):
        raise StripeFault("You cannot migrate a subscription that has been canceled.", param="from_subscription")
    start, end = records.period(subscription)
    items = [(one["price"]["id"], one["quantity"]) for one in subscription["items"]["data"]]
    schedule = world.add(
        {
            "id": world.new_id("subscription_schedule"),
            "object": "subscription_schedule",
            "application": None,
            "billing_mode": dict(records.BILLING_MODE),
            "canceled_at": None,
            "completed_at": None,
            "created": world.now,
            "current_phase": {"end_date": end, "start_date": start},
            "customer": subscription["customer"],
            "default_settings": {
                "application_fee_percent": None,
                "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
                "billing_cycle_anchor": "automatic",
                "billing_thresholds": None,
                "collection_method": "charge_automatically",
                "default_payment_method": None,
                "description": None,
                "invoice_settings": {"account_tax_ids": None, "days_until_due": None, "issuer": dict(records.ISSUER)},
                "on_behalf_of": None,
                "transfer_data": None,
            },
            "end_behavior": "cancel" if subscription["cancel_at_period_end"] else "release",
            "livemode": False,
            "metadata": params.get("metadata") or {},
            "phases": [_phase(subscription["currency"], items, start, end, "create_prorations")],
            "released_at": None,
            "released_subscription": None,
            "status": "active",
            "subscription": subscription["id"],
            "test_clock": None,
        }
    )
    schedule["phases"][0]["trial_end"] = subscription["trial_end"] if subscription["status"] == "trialing" else None
    subscription["schedule"] = schedule["id"]
    world.announce("subscription_schedule.created", schedule)
    return schedule


def retrieve(world: World, _: dict[str, Any], schedule_id: str) -> Wire:
    return world.get("subscription_schedule", schedule_id, "schedule")


def list_(world: World, params: dict[str, Any], _: str) -> Wire:
    customer, scheduled = params.get("customer"), params.get("scheduled", False)
    return page(
        world,
        "subscription_schedule",
        params,
        "/v1/subscription_schedules",
        lambda one: customer in (None, one["customer"]) and (not scheduled or one["status"] == "not_started"),
    )


def update(world: World, params: dict[str, Any], schedule_id: str) -> Wire:
    schedule = _live(world, schedule_id, "update")
    if "phases" in params:
        schedule["phases"] = _read_phases(world, schedule, params["phases"])
        for phase in schedule["phases"]:
            world.wake(phase["start_date"], world.get("subscription", schedule["subscription"]))
        schedule["current_phase"] = {name: schedule["phases"][0][name] for name in ("end_date", "start_date")}
    if "end_behavior" in params:
        schedule["end_behavior"] = params["end_behavior"]
    if "metadata" in params:
        records.merge_metadata(schedule, params["metadata"])
    return schedule


def release(world: World, _: dict[str, Any], schedule_id: str) -> Wire:
    """The subscription goes on as it is."""
    schedule = _live(world, schedule_id, "release")
    _let_go(world, schedule)
    return schedule


def cancel(world: World, _: dict[str, Any], schedule_id: str) -> Wire:
    """The subscription ends with it, at once."""
    schedule = _live(world, schedule_id, "cancel")
    records.end(world, world.get("subscription", schedule["subscription"]), reason="cancellation_requested")
    return schedule


def step(world: World, subscription: Wire) -> None:
    """The time of the present phase may have come to its end: the next begins, or the schedule lets go."""
    if not subscription["schedule"]:
        return
    schedule = world.get("subscription_schedule", subscription["schedule"])
    if world.now < schedule["current_phase"]["end_date"]:
        return
    upcoming = [phase for phase in schedule["phases"] if phase["start_date"] >= schedule["current_phase"]["end_date"]]
    if upcoming:
        phase = upcoming[0]
        schedule["current_phase"] = {name: phase[name] for name in ("end_date", "start_date")}
        wanted = [{"price": item["price"], "quantity": item["quantity"]} for item in phase["items"]]
        records.set_prices(world, subscription, records.read_prices(world, wanted, "items"))
        world.wake(phase["end_date"], subscription)
    elif schedule["end_behavior"] == "cancel":
        schedule.update(status="completed", completed_at=world.now, current_phase=None, subscription=None)
        subscription["schedule"] = None
        world.announce("subscription_schedule.completed", schedule)
        records.end(world, subscription, reason="cancellation_requested")
    else:
        _let_go(world, schedule)


def _let_go(world: World, schedule: Wire) -> None:
    subscription = world.get("subscription", schedule["subscription"])
    schedule.update(
        status="released",
        released_at=world.now,
        released_subscription=subscription["id"],
        current_phase=None,
        subscription=None,
    )
    subscription["schedule"] = None
    world.announce("subscription_schedule.released", schedule)


def _live(world: World, schedule_id: str, verb: str) -> Wire:
    schedule = world.get("subscription_schedule", schedule_id, "schedule")
    if schedule["status"] not in LIVE:
        raise StripeFault(
            f"You cannot {verb} a subscription schedule that is currently in the `{schedule['status']}` status. It "
            "must be in `active` or `not_started`.",
            param="schedule",
        )
    return schedule


def _read_phases(world: World, schedule: Wire, given: list[dict[str, Any]]) -> list[Wire]:
    """The phases of an update, from the present one on; each begins where the one before ends."""
    subscription = world.get("subscription", schedule["subscription"])
    start = schedule["current_phase"]["start_date"]
    phases: list[Wire] = []
    for index, one in enumerate(given):
        where = f"phases[{index}]"
        if one.get("start_date", start) != start or (index == 0 and "start_date" not in one):
            raise StripeFault(
                f"The phases must be contiguous, and the first has the start date of the present phase: {start}.",
                param=f"{where}[start_date]",
            )
        if "end_date" in one and "duration" in one:
            raise StripeFault("Specify one of `end_date` and `duration`.", param=f"{where}[duration]")
        prices = records.read_prices(world, one["items"], f"{where}[items]")
        length = one.get("duration") or dict(
            zip(("interval", "interval_count"), records.interval(prices[0][0]), strict=True)
        )
        end = one.get("end_date") or after(start, length["interval"], length.get("interval_count", 1))
        if end <= start:
            raise StripeFault("A phase must end after it starts.", param=f"{where}[end_date]")
        behavior = one.get("proration_behavior", "create_prorations")
        items = [(price["id"], quantity) for price, quantity in prices]
        phases.append(_phase(subscription["currency"], items, start, end, behavior))
        start = end
    _refuse_what_is_not_offered(subscription, schedule, phases, given)
    return phases


def _refuse_what_is_not_offered(
    subscription: Wire, schedule: Wire, phases: list[Wire], given: list[dict[str, Any]]
) -> None:
    if not phases:
        raise StripeFault("You must pass at least one phase.", param="phases")
    present = [(one["price"]["id"], one["quantity"]) for one in subscription["items"]["data"]]
    if [(item["price"], item["quantity"]) for item in phases[0]["items"]] != present:
        raise StripeFault("This fake does not change the items of the present phase.", param="phases[0][items]")
    if phases[0]["end_date"] != records.period(subscription)[1] and len(phases) > 1:
        raise StripeFault(
            "This fake changes prices at the end of the present period only.", param="phases[0][end_date]"
        )
    trial_end = schedule["phases"][0]["trial_end"]
    if [one.get("trial_end") for one in given] != [trial_end, *(None for _ in given[1:])]:
        raise StripeFault("This fake keeps a trial as it is: say its `trial_end` again.", param="phases[0][trial_end]")
    phases[0]["trial_end"] = trial_end


def _phase(currency: str, items: list[tuple[str, int]], start: int, end: int, behavior: str) -> Wire:
    return {
        "add_invoice_items": [],
        "application_fee_percent": None,
        "billing_cycle_anchor": None,
        "billing_thresholds": None,
        "collection_method": None,
        "currency": currency,
        "default_payment_method": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "end_date": end,
        "invoice_settings": None,
        "items": [
            {
                "billing_thresholds": None,
                "discounts": [],
                "metadata": {},
                "price": price_id,
                "quantity": quantity,
                "tax_rates": [],
            }
            for price_id, quantity in items
        ],
        "metadata": {},
        "on_behalf_of": None,
        "proration_behavior": behavior,
        "start_date": start,
        "transfer_data": None,
        "trial_end": None,
    }
