"""The list of events, kept for 30 days."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.listing import PAGE, page
from controlplane.demo.fake_stripe.parameters import Flag, Kind, ListOf, Text
from controlplane.demo.fake_stripe.world import Wire, World

KEPT_SECONDS = 30 * 86_400
LIST: dict[str, Kind] = {**PAGE, "type": Text(), "types": ListOf(Text(), most=20), "delivery_success": Flag()}


def retrieve(world: World, _: dict[str, Any], event_id: str) -> Wire:
    return world.get("event", event_id)


def list_(world: World, params: dict[str, Any], _: str) -> Wire:
    if "type" in params and "types" in params:
        raise StripeFault("You may pass either `type` or `types`, but not both.", param="types")
    patterns = params.get("types") or ([params["type"]] if "type" in params else ["*"])
    success = params.get("delivery_success")

    def keep(event: Wire) -> bool:
        return (
            world.now - event["created"] <= KEPT_SECONDS
            and any(fnmatchcase(event["type"], pattern) for pattern in patterns)
            and success in (None, event["pending_webhooks"] == 0)
        )

    return page(world, "event", params, "/v1/events", keep)
