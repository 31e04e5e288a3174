"""Customers. A deleted one leaves a stub behind, as Stripe's does, and takes its subscriptions along."""

from __future__ import annotations

import re
from typing import Any

from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.faults import StripeFault, missing
from controlplane.demo.fake_stripe.listing import PAGE, page
from controlplane.demo.fake_stripe.parameters import Clearable, Group, Kind, Metadata, Number, Text
from controlplane.demo.fake_stripe.world import Wire, World

FIELDS: dict[str, Kind] = {
    "email": Clearable(Text()),
    "name": Clearable(Text()),
    "description": Clearable(Text()),
    "metadata": Metadata(),
    "invoice_settings": Group({"default_payment_method": Text()}),
}
LIST: dict[str, Kind] = {**PAGE, "email": Text()}
SEARCH: dict[str, Kind] = {"query": Text(), "limit": Number(1, 100), "page": Text()}
_CLAUSE = re.compile(
    r"""(?:metadata\[(["'])(?P<key>[^"']+)\1\]|(?P<field>email|name))\s*:\s*(["'])(?P<value>[^"']*)\4"""
)


def create(world: World, params: dict[str, Any], _: str) -> Wire:
    customer: Wire = world.add(
        {
            "id": world.new_id("customer"),
            "object": "customer",
            "address": None,
            "balance": 0,
            "created": world.now,
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "description": None,
            "discount": None,
            "email": None,
            "invoice_prefix": "".join(world.random.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=8)),
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": False,
            "metadata": {},
            "name": None,
            "next_invoice_sequence": 1,
            "phone": None,
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": None,
        }
    )
    _apply(customer, params)
    world.announce("customer.created", customer)
    return customer


def retrieve(world: World, _: dict[str, Any], customer_id: str) -> Wire:
    return world.get("customer", customer_id)


def update(world: World, params: dict[str, Any], customer_id: str) -> Wire:
    customer = live(world, customer_id, "id")
    _apply(customer, params)
    return customer


def delete(world: World, _: dict[str, Any], customer_id: str) -> Wire:
    customer = live(world, customer_id, "id")
    for subscription in world.objects.get("subscription", {}).values():
        if subscription["customer"] == customer_id and not records.has_ended(subscription):
            records.end(world, world.get("subscription", subscription["id"]), reason="cancellation_requested")
    world.announce("customer.deleted", customer)
    stub = {"id": customer_id, "object": "customer", "deleted": True}
    customer.clear()
    customer.update(stub)
    world.tell_nothing(customer)
    return customer


def list_(world: World, params: dict[str, Any], _: str) -> Wire:
    email = params.get("email")
    return page(
        world,
        "customer",
        params,
        "/v1/customers",
        lambda one: not one.get("deleted") and (email is None or one["email"] == email),
    )


def search(world: World, params: dict[str, Any], _: str) -> Wire:
    """The clauses that are asked here: `metadata['key']:'value'`, `email:'…'`, `name:'…'`, joined by AND."""
    clauses = [_CLAUSE.fullmatch(part.strip()) for part in params["query"].split(" AND ")]
    if not all(clauses):
        raise StripeFault("We were unable to parse your search query.", param="query")
    found = [
        one
        for one in world.all("customer")
        if not one.get("deleted") and all(clause is not None and _matches(one, clause) for clause in clauses)
    ]
    limit = params.get("limit", 10)
    start = int(params.get("page", "0")) if params.get("page", "0").isdigit() else 0
    has_more = len(found) > start + limit
    return {
        "object": "search_result",
        "data": found[start : start + limit],
        "has_more": has_more,
        "next_page": str(start + limit) if has_more else None,
        "url": "/v1/customers/search",
    }


def live(world: World, customer_id: str, param: str) -> Wire:
    """A customer who was not deleted. Raises StripeFault 404."""
    customer = world.get("customer", customer_id, param)
    if customer.get("deleted"):
        raise missing("customer", customer_id, param)
    return customer


def _apply(customer: Wire, params: dict[str, Any]) -> None:
    for name in ("email", "name", "description"):
        if name in params:
            customer[name] = params[name]
    if "metadata" in params:
        records.merge_metadata(customer, params["metadata"])
    if "invoice_settings" in params:
        customer["invoice_settings"].update(params["invoice_settings"])


def _matches(customer: Wire, clause: re.Match[str]) -> bool:
    if clause["field"]:
        return bool(customer[clause["field"]] == clause["value"])
    return bool(customer["metadata"].get(clause["key"]) == clause["value"])
