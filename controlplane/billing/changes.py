"""From two plans to what a change between them is, and whether the present use fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from controlplane.billing.plans import Plan
from controlplane.billing.records import Interval
from controlplane.models import Entitlement, Instance, InstanceKind

_KIND_WORDS = {InstanceKind.GAME: "game servers", InstanceKind.DEV: "dev containers"}


class Direction(StrEnum):
    SAME = "same"
    UP = "upgrade"
    DOWN = "downgrade"


def direction(present: Plan | None, interval: str, target: Plan, target_interval: Interval) -> Direction:
    """A larger plan is an upgrade, and of one plan the longer interval. From a plan that is no longer known every
    change is an upgrade: it takes effect, and is charged, at once."""
    if present is None or target.rank > present.rank:
        return Direction.UP
    if target.rank < present.rank:
        return Direction.DOWN
    if interval == target_interval:
        return Direction.SAME
    return Direction.UP if target_interval is Interval.YEAR else Direction.DOWN


def exceeding(instances: Iterable[Instance], entitlement: Entitlement) -> list[str]:
    """Where present use is more than a plan allows, a sentence each, with the names of what there is."""
    problems = []
    owned = list(instances)
    for kind, words in _KIND_WORDS.items():
        names = sorted(instance.name for instance in owned if instance.kind is kind)
        allowed = entitlement.instances.get(kind, 0)
        if len(names) > allowed:
            problems.append(f"{len(names)} {words} ({', '.join(names)}), where the plan allows {allowed}")
    return problems
