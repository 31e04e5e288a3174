"""As `tests.crashing_control_plane`, on a real LXD."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import uvloop

from controlplane.listener import open_listener
from controlplane.models import Operation, Phase
from controlplane.observability.logs import configure_logging
from controlplane.settings import Settings
from controlplane.wiring import ControlPlane, open_database
from controlplane.wiring.providers import make_lxd
from handlers.server import ApiServer
from tests.crashing_control_plane import DyingEffects, FaultPoint, Journal, WatchedProvider

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


async def serve(environment: Mapping[str, str]) -> None:
    settings = Settings.from_env(environment)
    journal = Journal(Path(environment["JOURNAL"]))
    fault = FaultPoint(environment.get("DIE_AT", ""), environment.get("DIE_NAME", ""))
    watched = LxdWatched(make_lxd(settings), journal)  # type: ignore[arg-type]
    watched.fault = fault
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    listener = open_listener(settings.http_address, settings.http_port)
    async with open_database(settings) as database:
        plane = ControlPlane(settings, database, provider=watched)
        runner = plane.provisioning.runner
        runner._effects = LxdEffects(  # type: ignore[assignment]
            runner._effects, fault, journal, plane.services.agents, watched
        )
        server = ApiServer(plane.services)
        server.listen(listener)
        await plane.start()
        print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await told.wait()
        await server.drain(limit_seconds=1)
        await plane.stop()


def main() -> None:
    listener = configure_logging("WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        running.run(serve(os.environ))
    listener.stop()


if __name__ == "__main__":
    main()
