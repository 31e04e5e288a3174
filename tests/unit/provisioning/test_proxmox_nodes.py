"""A new container goes where most memory is free, counting what went there a moment ago."""

from __future__ import annotations

from typing import Any

from controlplane.provisioning.proxmox_nodes import PLACED_SECONDS, Placement
from tests.fakes import FakeClock

GIB = 1 << 30


def row(name: str, free_gib: int, status: str = "online") -> dict[str, Any]:
    return {"node": name, "status": status, "maxmem": 64 * GIB, "mem": (64 - free_gib) * GIB}


def test_the_most_free_memory_wins_among_those_allowed_and_online() -> None:
    placement = Placement(FakeClock().monotonic)
    nodes = [row("a", 8), row("b", 16), row("c", 32), row("d", 60, "offline")]
    assert placement.choose(nodes, {"a", "b", "d"}, 1024) == "b"
    assert placement.choose(nodes, {"d"}, 1024) is None
    assert placement.choose(nodes, set(), 1024) is None


def test_a_node_without_the_memory_gets_nothing() -> None:
    placement = Placement(FakeClock().monotonic)
    assert placement.choose([row("a", 2)], {"a"}, 2048) == "a"
    assert placement.choose([row("a", 2)], {"a"}, 1) is None


def test_figures_that_lag_behind_are_helped_by_memory() -> None:
    clock = FakeClock()
    placement = Placement(clock.monotonic)
    nodes = [row("a", 10), row("b", 9)]
    chosen = [placement.choose(nodes, {"a", "b"}, 3 * 1024) for _ in range(4)]
    assert chosen == ["a", "b", "a", "b"]
    clock.advance(PLACED_SECONDS + 1)
    assert placement.choose(nodes, {"a", "b"}, 3 * 1024) == "a"


def test_a_row_without_figures_is_no_candidate() -> None:
    placement = Placement(FakeClock().monotonic)
    assert placement.choose([{"node": "a", "status": "online"}], {"a"}, 1) is None
