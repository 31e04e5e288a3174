"""Which node a new container goes to: the one with the most free memory, of those that can have it. Pure but for the
clock: what was placed a moment ago does not show in the cluster's figures yet, so it is remembered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

PLACED_SECONDS = 60.0
_MIB = 1 << 20


class Placement:
    """`monotonic` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._placed: list[tuple[float, str, int]] = []

    def choose(self, nodes: Sequence[Mapping[str, Any]], allowed: Collection[str], memory_mib: int) -> str | None:
        """`nodes` are the rows of /cluster/resources?type=node. None where no node has the memory."""
        since = self._monotonic() - PLACED_SECONDS
        self._placed = [each for each in self._placed if each[0] > since]
        free = {
            str(row["node"]): int(row.get("maxmem") or 0) - int(row.get("mem") or 0) - self._recent(str(row["node"]))
            for row in nodes
            if row.get("status") == "online" and row.get("node") in allowed
        }
        best = max(sorted(free), key=lambda node: free[node], default=None)
        if best is None or free[best] < memory_mib * _MIB:
            return None
        self._placed.append((self._monotonic(), best, memory_mib * _MIB))
        return best

    def _recent(self, node: str) -> int:
        return sum(size for _, where, size in self._placed if where == node)
