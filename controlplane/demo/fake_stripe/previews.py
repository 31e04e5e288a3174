"""`POST /v1/invoices/create_preview`: what a change, or the next period, would cost. Nothing is stored."""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe import invoices, prorations
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.parameters import Choice, Flag, Group, Kind, Number, Text
from controlplane.demo.fake_stripe.subscriptions import PRORATIONS
from controlplane.demo.fake_stripe.world import Wire, World

PREVIEW: dict[str, Kind] = {
    "customer": Text(),
    "subscription": Text(),
    "subscription_details": Group(
        {
            "items": prorations.ITEMS,
            "proration_behavior": Choice(PRORATIONS),
            "proration_date": Number(),
            "cancel_at_period_end": Flag(),
        }
    ),
}


def create(world: World, params: dict[str, Any], _: str) -> Wire:
    if "subscription" not in params:
        raise StripeFault("Missing required param: subscription.", code="parameter_missing", param="subscription")
    subscription = world.get("subscription", params["subscription"], "subscription")
    if params.get("customer", subscription["customer"]) != subscription["customer"]:
        raise StripeFault("The subscription is not this customer's.", param="customer")
    details = params.get("subscription_details", {})
    lines = _lines(world, subscription, details)
    if not lines:
        raise StripeFault("No upcoming invoices for customer", status=404, code="invoice_upcoming_none")
    preview = invoices.shape(world, subscription, lines, "upcoming", invoice_id=world.new_id("preview"))
    if any(line["parent"]["subscription_item_details"]["proration"] for line in lines):
        at = details.get("proration_date", world.now)
        preview["parent"]["subscription_details"]["subscription_proration_date"] = at
    return preview


def _lines(world: World, subscription: Wire, details: dict[str, Any]) -> list[Wire]:
    if records.has_ended(subscription) or (details.get("cancel_at_period_end") and "items" not in details):
        return []
    start, end = records.next_period(subscription)
    if "items" not in details:
        return _renewal(world, subscription["items"]["data"], start, end)
    prices = prorations.merged(world, subscription, details["items"], "subscription_details[items]")
    present = subscription["items"]["data"]
    bought = [
        {**present[min(index, len(present) - 1)], "price": price, "quantity": quantity}
        for index, (price, quantity) in enumerate(prices)
    ]
    if subscription["status"] == "trialing":
        return _renewal(world, bought, start, end)
    change = prorations.lines(world, subscription, prices, details.get("proration_date", world.now))
    behavior = details.get("proration_behavior", "create_prorations")
    if behavior == "none":
        change = [line for line in change if not line["parent"]["subscription_item_details"]["proration"]]
    if behavior == "always_invoice" or prorations.restarts_period(subscription, prices):
        return change
    return change + _renewal(world, bought, start, end)


def _renewal(world: World, items: list[Wire], start: int, end: int) -> list[Wire]:
    return [
        invoices.line(
            world,
            item,
            amount=item["price"]["unit_amount"] * item["quantity"],
            description=f"{item['quantity']} × {invoices.name(world, item)}",
            start=start,
            end=end,
            proration=False,
        )
        for item in items
    ]
