"""What a change within a period costs: unused time is given back, the rest of the period is charged, by the second."""

from __future__ import annotations

from typing import Any, TypeAlias

from controlplane.demo.fake_stripe import catalog, invoices
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.calendar import period_end
from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.parameters import Flag, Group, Kind, ListOf, Metadata, Number, Text
from controlplane.demo.fake_stripe.world import Wire, World

Prices: TypeAlias = list[tuple[Wire, int]]

ITEMS: Kind = ListOf(
    Group({"id": Text(), "price": Text(), "quantity": Number(0), "deleted": Flag(), "metadata": Metadata()}), most=20
)


def merged(world: World, subscription: Wire, items: list[dict[str, Any]], param: str) -> Prices:
    """What is bought once `items` of a request are applied. Raises StripeFault."""
    present = subscription["items"]["data"]
    wanted: dict[str, tuple[Wire, int]] = {one["id"]: (one["price"], one["quantity"]) for one in present}
    added: Prices = []
    for index, one in enumerate(items):
        where = f"{param}[{index}]"
        item_id = one.get("id")
        if item_id is None:
            added += records.read_prices(world, [one], where)
        elif item_id not in wanted:
            raise StripeFault(
                f"No such subscription item: '{item_id}'", status=404, code="resource_missing", param=f"{where}[id]"
            )
        elif one.get("deleted"):
            del wanted[item_id]
        else:
            price, quantity = wanted[item_id]
            if "price" in one:
                price = catalog.sellable(world, one["price"], f"{where}[price]")
            wanted[item_id] = (price, one.get("quantity", quantity))
    prices = [*wanted.values(), *added]
    return records.read_prices(
        world, [{"price": price["id"], "quantity": quantity} for price, quantity in prices], param
    )


def restarts_period(subscription: Wire, prices: Prices) -> bool:
    """Another interval begins a period of its own at once."""
    return records.interval(subscription["items"]["data"][0]["price"]) != records.interval(prices[0][0])


def lines(world: World, subscription: Wire, prices: Prices, at: int) -> list[Wire]:
    """The lines for changing to `prices` at a moment of the present period."""
    start, end = records.period(subscription)
    if not start <= at <= end:
        raise StripeFault("Cannot specify `proration_date` outside of the current period.", param="proration_date")
    present = subscription["items"]["data"]
    fresh = restarts_period(subscription, prices)
    found = []
    for index in range(max(len(present), len(prices))):
        old = present[index] if index < len(present) else None
        new = prices[index] if index < len(prices) else None
        if old is not None and new is not None and (old["price"]["id"], old["quantity"]) == (new[0]["id"], new[1]):
            continue
        if old is not None:
            found.append(_share(world, old, -1, "Unused time on", at, (start, end)))
        if new is not None:
            item = {**(old or present[0]), "price": new[0], "quantity": new[1]}
            if fresh:
                found.append(_whole(world, item, at))
            else:
                found.append(_share(world, item, 1, "Remaining time on", at, (start, end)))
    return found


def _share(world: World, item: Wire, sign: int, words: str, at: int, period: tuple[int, int]) -> Wire:
    start, end = period
    amount = round(item["price"]["unit_amount"] * item["quantity"] * (end - at) / (end - start))
    description = f"{words} {invoices.name(world, item)} after {invoices.day(at)}"
    return invoices.line(world, item, amount=sign * amount, description=description, start=at, end=end, proration=True)


def _whole(world: World, item: Wire, at: int) -> Wire:
    return invoices.line(
        world,
        item,
        amount=item["price"]["unit_amount"] * item["quantity"],
        description=f"{item['quantity']} × {invoices.name(world, item)}",
        start=at,
        end=period_end(at, at, *records.interval(item["price"])),
        proration=False,
    )
