"""As `tests.crashing_control_plane`, on a real LXD."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import uvloop

from controlplane.observability.logs import configure_logging
from controlplane.settings import Settings
from controlplane.wiring import ControlPlane, open_database
from controlplane.wiring.providers import make_lxd
from handlers.server import ApiServer
from tests.crashing_control_plane import DyingEffects, FaultPoint, Journal, WatchedProvider


async def serve(environment: Mapping[str, str]) -> None:
    settings = Settings.from_env(environment)
    journal = Journal(Path(environment["JOURNAL"]))
    watched = WatchedProvider(make_lxd(settings), journal)  # type: ignore[arg-type]
    watched.name = "lxd"
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with open_database(settings) as database:
        plane = ControlPlane(settings, database, provider=watched)
        runner = plane.provisioning.runner
        fault = FaultPoint(environment.get("DIE_AT", ""), environment.get("DIE_NAME", ""))
        runner._effects = DyingEffects(  # type: ignore[assignment]
            runner._effects, fault, journal, plane.services.agents, watched
        )
        server = ApiServer(plane.services)
        port = server.listen()
        await plane.start()
        print(f"serving on http://127.0.0.1:{port}", flush=True)
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
