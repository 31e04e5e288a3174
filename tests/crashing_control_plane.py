"""A control plane on the local provider that kills itself at a named point, as a process of its own.

`DIE_AT` is `before|after` and a phase, or `before|after undo` and a phase, or `after provider` and a method; it counts
for the operation on the instance named DIE_NAME alone. With `DIE_BY=SIGSTOP` it only stands still there, once. What was
really done to machines, and whether an agent was ready when its instance was stored or published, is appended to the
file JOURNAL. Dev containers never get ready.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvloop

from controlplane.agents.client import AgentClient
from controlplane.errors import AgentError
from controlplane.listener import open_listener
from controlplane.models import InstanceKind, Machine, MachineAddress, MachineSpec, Operation, Phase
from controlplane.observability.logs import configure_logging
from controlplane.ports import Provider
from controlplane.provisioning.effects import Effects
from controlplane.provisioning.local import LocalProvider
from controlplane.provisioning.local_workloads import PROFILES, WorkloadProfile
from controlplane.settings import Settings
from controlplane.wiring import ControlPlane, open_database
from handlers.server import ApiServer

ROOT = Path(__file__).resolve().parent.parent
NEVER_READY = WorkloadProfile(command=("/bin/sh",), ready_pattern="this is never said", stop_line="exit")


class FaultPoint:
    """Sends the process a signal when it comes to its place for the first time."""

    def __init__(self, place: str, name: str, number: signal.Signals) -> None:
        self._place = place
        self._name = name
        self._signal = number

    def reach(self, place: str, operation: Operation) -> None:
        if place == self._place and operation.name == self._name:
            self._place = ""
            os.kill(os.getpid(), self._signal)


class Journal:
    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: str) -> None:
        os.write(self._descriptor, (line + "\n").encode())


class WatchedProvider:
    """Satisfies `ports.Provider`: the local one, with what it really did written down."""

    name = "local"

    def __init__(self, inner: LocalProvider, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal
        self.after: dict[str, Any] = {}

    async def find(self, vmid: int) -> Machine | None:
        return await self._inner.find(vmid)

    async def create(self, spec: MachineSpec) -> None:
        await self._inner.create(spec)
        self._journal.write(f"created {spec.vmid} {spec.operation_id}")
        self._told("create")

    async def start(self, vmid: int) -> None:
        await self._inner.start(vmid)
        self._told("start")

    async def locate(self, vmid: int) -> MachineAddress | None:
        return await self._inner.locate(vmid)

    async def stop(self, vmid: int) -> None:
        await self._inner.stop(vmid)
        self._told("stop")

    async def destroy(self, vmid: int, *, operation_id: str) -> None:
        was_there = await self._inner.find(vmid) is not None
        await self._inner.destroy(vmid, operation_id=operation_id)
        if was_there:
            self._journal.write(f"destroyed {vmid} {operation_id}")
        self._told("destroy")

    async def list_marked(self) -> list[Machine]:
        return await self._inner.list_marked()

    async def close(self) -> None:
        await self._inner.close()

    def _told(self, method: str) -> None:
        if method in self.after:
            self.after[method]()


class DyingEffects:
    """Stands in the place of `Effects` before the runner."""

    def __init__(
        self, inner: Effects, fault: FaultPoint, journal: Journal, agents: AgentClient, provider: WatchedProvider
    ) -> None:
        self._inner = inner
        self._fault = fault
        self._journal = journal
        self._agents = agents
        self._provider = provider

    async def do(self, operation: Operation) -> Mapping[str, Any]:
        phase = operation.phase.value
        self._fault.reach(f"before {phase}", operation)
        for method in ("create", "start", "stop", "destroy"):
            self._provider.after[method] = lambda at=f"after provider {method}": self._fault.reach(at, operation)
        if operation.phase in (Phase.PERSISTING, Phase.PUBLISHING):
            await self._note_readiness(operation)
        facts = await self._inner.do(operation)
        self._fault.reach(f"after {phase}", operation)
        return facts

    async def _note_readiness(self, operation: Operation) -> None:
        try:
            await self._agents.assert_agent_ready(self._inner._present_endpoint(operation))
        except AgentError as error:
            self._journal.write(f"unready {operation.phase.value} {operation.id} {error.message}")

    async def undo(self, operation: Operation, phase: Phase) -> None:
        self._fault.reach(f"before undo {phase.value}", operation)
        await self._inner.undo(operation, phase)
        self._fault.reach(f"after undo {phase.value}", operation)

    def left_by(self, operation: Operation, phase: Phase) -> str:
        return self._inner.left_by(operation, phase)

    async def release_vmid(self, operation: Operation) -> None:
        await self._inner.release_vmid(operation)


MakeProvider = Callable[[Settings, Journal, FaultPoint], WatchedProvider]


def make_local(settings: Settings, journal: Journal, _fault: FaultPoint) -> WatchedProvider:
    profiles = {InstanceKind.GAME: PROFILES[InstanceKind.DEV], InstanceKind.DEV: NEVER_READY}  # a shell is soon ready
    return WatchedProvider(LocalProvider(settings.local_provider_dir, ROOT, profiles=profiles), journal)


async def serve(environment: Mapping[str, str], make_provider: MakeProvider, make_effects: type[DyingEffects]) -> None:
    settings = Settings.from_env(environment)
    journal = Journal(Path(environment["JOURNAL"]))
    fault = FaultPoint(
        environment.get("DIE_AT", ""),
        environment.get("DIE_NAME", ""),
        signal.Signals[environment.get("DIE_BY", "SIGKILL")],
    )
    watched = make_provider(settings, journal, fault)
    provider: Provider = watched
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    listener = open_listener(settings.http_address, settings.http_port)
    async with open_database(settings) as database:
        plane = ControlPlane(settings, database, provider=provider)
        runner = plane.provisioning.runner
        runner._effects = make_effects(  # type: ignore[assignment]
            runner._effects, fault, journal, plane.services.agents, watched
        )
        server = ApiServer(plane.services)
        server.listen(listener)
        await plane.start()
        print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await told.wait()
        await server.drain(limit_seconds=1)
        await plane.stop()


def main(make_provider: MakeProvider, make_effects: type[DyingEffects]) -> None:
    listener = configure_logging("WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        running.run(serve(os.environ, make_provider, make_effects))
    listener.stop()


if __name__ == "__main__":
    main(make_local, DyingEffects)
