"""Products and prices: what there is to buy. They come from the command line, from control calls or from the API."""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.listing import PAGE, page
from controlplane.demo.fake_stripe.parameters import Choice, Clearable, Flag, Group, Kind, Metadata, Number, Text
from controlplane.demo.fake_stripe.world import Wire, World

INTERVALS = ("day", "week", "month", "year")
CREATE_PRODUCT: dict[str, Kind] = {
    "name": Text(),
    "id": Text(),
    "description": Clearable(Text()),
    "metadata": Metadata(),
}
CREATE_PRICE: dict[str, Kind] = {
    "currency": Text(),
    "unit_amount": Number(0),
    "product": Text(),
    "recurring": Group({"interval": Choice(INTERVALS), "interval_count": Number(1, 365)}, frozenset({"interval"})),
    "nickname": Text(),
    "lookup_key": Text(),
    "metadata": Metadata(),
}
LIST_PRICES: dict[str, Kind] = {**PAGE, "active": Flag(), "product": Text(), "currency": Text()}


def create_product(world: World, params: dict[str, Any], _: str) -> Wire:
    product = add_product(world, params["name"], product_id=params.get("id"))
    product["description"] = params.get("description")
    product["metadata"] = params.get("metadata") or {}
    return product


def create_price(world: World, params: dict[str, Any], _: str) -> Wire:
    recurring = params.get("recurring")
    if recurring is None:
        raise StripeFault("Only recurring prices are offered here.", param="recurring")
    price = add_price(
        world,
        product_id=params["product"],
        amount=params["unit_amount"],
        currency=params["currency"],
        interval=recurring["interval"],
        interval_count=recurring.get("interval_count", 1),
    )
    price["nickname"] = params.get("nickname")
    price["lookup_key"] = params.get("lookup_key")
    price["metadata"] = params.get("metadata") or {}
    return price


def retrieve_price(world: World, _: dict[str, Any], price_id: str) -> Wire:
    return world.get("price", price_id, "price")


def list_prices(world: World, params: dict[str, Any], _: str) -> Wire:
    wanted = {name: params[name] for name in ("active", "product", "currency") if name in params}
    return page(
        world, "price", params, "/v1/prices", lambda price: all(price[name] == value for name, value in wanted.items())
    )


def add_product(world: World, name: str, *, product_id: str | None = None) -> Wire:
    return world.add(
        {
            "id": product_id or world.new_id("product"),
            "object": "product",
            "active": True,
            "created": world.now,
            "default_price": None,
            "description": None,
            "images": [],
            "livemode": False,
            "marketing_features": [],
            "metadata": {},
            "name": name,
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": None,
            "tax_code": None,
            "type": "service",
            "unit_label": None,
            "updated": world.now,
            "url": None,
        }
    )


def add_price(
    world: World,
    *,
    product_id: str,
    amount: int,
    currency: str,
    interval: str,
    interval_count: int = 1,
    price_id: str | None = None,
) -> Wire:
    world.get("product", product_id, "product")
    return world.add(
        {
            "id": price_id or world.new_id("price"),
            "object": "price",
            "active": True,
            "billing_scheme": "per_unit",
            "created": world.now,
            "currency": currency.lower(),
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": None,
            "metadata": {},
            "nickname": None,
            "product": product_id,
            "recurring": {
                "interval": interval,
                "interval_count": interval_count,
                "meter": None,
                "usage_type": "licensed",
            },
            "tax_behavior": "unspecified",
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring",
            "unit_amount": amount,
            "unit_amount_decimal": str(amount),
        }
    )


def sellable(world: World, price_id: str, param: str) -> Wire:
    """A price that may be put on a subscription. Raises StripeFault."""
    price = world.get("price", price_id, param)
    if not price["active"]:
        raise StripeFault(
            f"The price specified is inactive: {price_id}. This field only accepts active prices.", param=param
        )
    return price
