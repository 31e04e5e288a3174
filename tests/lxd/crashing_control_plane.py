"""As `tests.crashing_control_plane`, on a real LXD."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from controlplane.models import Operation, Phase
from controlplane.settings import Settings
from controlplane.wiring.providers import make_lxd
from tests.crashing_control_plane import DyingEffects, FaultPoint, Journal, WatchedProvider, main

OPERATION: ContextVar[Operation] = ContextVar("operation")


class LxdWatched(WatchedProvider):
    """Several operations run at once: which one a call is of is known by its context."""

    name = "lxd"
    fault: FaultPoint

    def _told(self, method: str) -> None:
        operation = OPERATION.get(None)
        if operation is not None:  # else it is the sweep for orphans
            self.fault.reach(f"after provider {method}", operation)


class LxdEffects(DyingEffects):
    async def do(self, operation: Operation) -> Mapping[str, Any]:
        OPERATION.set(operation)
        return await super().do(operation)

    async def undo(self, operation: Operation, phase: Phase) -> None:
        OPERATION.set(operation)
        await super().undo(operation, phase)


def make_watched(settings: Settings, journal: Journal, fault: FaultPoint) -> LxdWatched:
    watched = LxdWatched(make_lxd(settings), journal)  # type: ignore[arg-type]
    watched.fault = fault
    return watched


if __name__ == "__main__":
    main(make_watched, LxdEffects)
