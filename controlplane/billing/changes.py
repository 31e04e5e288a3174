"""From two plans to what a change between them is, and whether the present use fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controlplane.billing.plans import Plan
from controlplane.billing.records import Interval
from controlplane.models import Entitlement, Holding, InstanceKind

_KIND_WORDS = {
    InstanceKind.GAME: ("gameServers", "game servers"),
    InstanceKind.DEV: ("devContainers", "dev containers"),
}


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


@dataclass(frozen=True, slots=True)
class Excess:
    """More than a plan allows: `limit` is the entitlement's name in the API, `names` are those of the instances that
    it is about, `problem` says it in words."""

    limit: str
    allowed: int
    used: int
    names: tuple[str, ...]
    problem: str

    def as_document(self) -> dict[str, Any]:
        """JSON-compatible."""
        return {"limit": self.limit, "allowed": self.allowed, "used": self.used, "instances": list(self.names)}


def exceeding(holdings: Iterable[Holding], entitlement: Entitlement) -> list[Excess]:
    """Where present use is more than a plan allows.

    Backups and the IDE are not in it: a smaller plan takes nothing away that is there (see `consequences`). Nor is an
    instance whose memory nobody knows.
    """
    found = []
    owned = sorted(holdings, key=lambda each: each.name)
    for kind, (limit, words) in _KIND_WORDS.items():
        names = tuple(each.name for each in owned if each.kind is kind)
        allowed = entitlement.instances.get(kind, 0)
        if len(names) > allowed:
            problem = f"{len(names)} {words} ({', '.join(names)}), where the plan allows {allowed}"
            found.append(Excess(limit, allowed, len(names), names, problem))
    return [*found, *_too_large(owned, entitlement.memory_mib)]


def _too_large(holdings: Iterable[Holding], allowed: int) -> list[Excess]:
    large = [(each.name, each.memory_mib) for each in holdings if each.memory_mib and each.memory_mib > allowed]
    if not large:
        return []
    told = ", ".join(f"{name} has {memory} MiB" for name, memory in large)
    problem = f"more memory than the {allowed} MiB that the plan allows an instance ({told})"
    names = tuple(name for name, _ in large)
    return [Excess("memoryMib", allowed, max(memory for _, memory in large), names, problem)]


def consequences(present: Entitlement, target: Entitlement) -> list[str]:
    """What a smaller plan changes beside the number and the size of instances, a sentence each."""
    told = []
    if target.backups < present.backups:
        told.append(
            f"An instance may then have {target.backups} backups, now {present.backups}: those that are there stay, "
            "and new ones can be made once there are fewer."
        )
    if present.ide and not target.ide:
        told.append("The browser IDE can then no longer be opened.")
    return told
