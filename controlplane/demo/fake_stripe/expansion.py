"""`expand[]`: ids in an answer become the objects that they name (https://docs.stripe.com/api/expanding_objects)."""

from __future__ import annotations

from typing import Any

import orjson

from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.listing import listed
from controlplane.demo.fake_stripe.world import Wire, World

MAX_DEPTH = 4
KIND_OF_FIELD = {
    "customer": "customer",
    "subscription": "subscription",
    "latest_invoice": "invoice",
    "invoice": "invoice",
    "schedule": "subscription_schedule",
    "price": "price",
    "product": "product",
}


def expand(world: World, wire: Wire, paths: list[str]) -> Wire:
    """A copy with each path expanded. Raises StripeFault for one that cannot be."""
    answer: Wire = orjson.loads(orjson.dumps(wire))
    for path in paths:
        segments = path.split(".")
        if len(segments) > MAX_DEPTH + (segments[0] == "data"):
            raise StripeFault("You cannot expand more than 4 levels of a property.", param="expand")
        _walk(world, answer, segments, path)
    return answer


def _walk(world: World, place: Any, segments: list[str], path: str) -> None:
    if not segments or place is None:
        return
    if isinstance(place, list):
        for one in place:
            _walk(world, one, segments, path)
        return
    if not isinstance(place, dict):
        raise _cannot(path)
    name, rest = segments[0], segments[1:]
    included = _included(world, place, name)
    if included is not None:
        place[name] = included
    if name not in place:
        raise _cannot(path)
    value = place[name]
    if isinstance(value, str):
        place[name] = value = _object(world, name, value, path)
    elif not rest and not isinstance(value, dict | list | None):
        raise _cannot(path)
    _walk(world, value, rest, path)


def _object(world: World, name: str, object_id: str, path: str) -> Wire:
    kind = KIND_OF_FIELD.get(name)
    found = world.objects.get(kind, {}).get(object_id) if kind else None
    if found is None:
        raise _cannot(path)
    copy: Wire = orjson.loads(orjson.dumps(found))
    return copy


def _included(world: World, place: Wire, name: str) -> Wire | None:
    """Fields that are only there when they are asked for."""
    if place.get("object") == "checkout.session" and name == "line_items":
        lines = world.note(place["id"])["line_items"]
        return listed(orjson.loads(orjson.dumps(lines)), f"/v1/checkout/sessions/{place['id']}/line_items")
    if place.get("object") == "customer" and name == "subscriptions":
        own = [
            orjson.loads(orjson.dumps(one))
            for one in world.all("subscription")
            if one["customer"] == place["id"] and one["status"] not in ("canceled", "incomplete_expired")
        ]
        return listed(own, f"/v1/customers/{place['id']}/subscriptions")
    return None


def _cannot(path: str) -> StripeFault:
    return StripeFault(f"This property cannot be expanded ({path}).", param="expand")
