"""Pages of a list, newest first: `limit`, `starting_after`, `ending_before`, `created` (https://docs.stripe.com/api/pagination)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from controlplane.demo.fake_stripe.faults import StripeFault, missing
from controlplane.demo.fake_stripe.parameters import Group, Kind, Number, Text, ValueOrGroup
from controlplane.demo.fake_stripe.world import KIND_NAMES, Wire, World

DEFAULT_LIMIT, MAX_LIMIT = 10, 100
MOMENT = ValueOrGroup(Number(), Group({"gt": Number(), "gte": Number(), "lt": Number(), "lte": Number()}))
PAGE: dict[str, Kind] = {
    "limit": Number(1, MAX_LIMIT),
    "starting_after": Text(),
    "ending_before": Text(),
    "created": MOMENT,
}


def page(world: World, kind: str, params: dict[str, Any], url: str, keep: Callable[[Wire], bool]) -> Wire:
    """The page that `params` ask for, of those objects that `keep` accepts."""
    limit = params.get("limit", DEFAULT_LIMIT)
    wanted = [one for one in world.all(kind) if keep(one) and _is_within(one["created"], params.get("created"))]
    if "starting_after" in params and "ending_before" in params:
        raise StripeFault("You cannot use both starting_after and ending_before.", param="ending_before")
    if "ending_before" in params:
        newer = wanted[: _position(world, kind, wanted, params["ending_before"], "ending_before")]
        return listed(newer[-limit:], url, has_more=len(newer) > limit)
    start = 0
    if "starting_after" in params:
        start = _position(world, kind, wanted, params["starting_after"], "starting_after") + 1
    return listed(islice(wanted, start, start + limit), url, has_more=len(wanted) > start + limit)


def listed(items: Iterable[Wire], url: str, *, has_more: bool = False) -> Wire:
    return {"object": "list", "data": list(items), "has_more": has_more, "url": url}


def _position(world: World, kind: str, wanted: list[Wire], object_id: str, param: str) -> int:
    if object_id not in world.objects.get(kind, {}):
        raise missing(KIND_NAMES.get(kind, kind), object_id, param)
    for index, one in enumerate(wanted):
        if one["id"] == object_id:
            return index
    raise StripeFault(f"{object_id} is not on this list.", param=param)


def _is_within(moment: int, wanted: Any) -> bool:
    if wanted is None:
        return True
    if isinstance(wanted, int):
        return moment == wanted
    return bool(
        moment > wanted.get("gt", moment - 1)
        and moment >= wanted.get("gte", moment)
        and moment < wanted.get("lt", moment + 1)
        and moment <= wanted.get("lte", moment)
    )
