"""Machines that are processes of this host: the reference agent, each in its own folder and process group.

For the demo and for evaluation: there is no isolation but the folder. Agents outlive the control plane and are found
again by what their folders say (`local_machine`), unless they are told to end with it. Satisfies `ports.Provider`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from controlplane.errors import ProviderRefused, ProviderUnavailable, VmidTaken
from controlplane.models import InstanceKind, Machine, MachineAddress, MachineSpec
from controlplane.provisioning.local_machine import LocalMachine, MachineMark
from controlplane.provisioning.local_workloads import PROFILES, WorkloadProfile

_T = TypeVar("_T")

WORKER_THREADS = 8
WAITING_CALLS = 200
IDE_PORTS = range(20_000, 30_000)
"""Below what the kernel gives to others by itself (ip_local_port_range)."""


class LocalProvider:
    """`source_folder` is where `controlplane` is imported from, `profiles` what runs in a machine of each kind."""

    name = "local"

    def __init__(
        self,
        folder: Path,
        source_folder: Path,
        *,
        dies_with_parent: bool = False,
        profiles: Mapping[InstanceKind, WorkloadProfile] = PROFILES,
    ) -> None:
        self._folder = folder.resolve()
        self._source_folder = source_folder
        self._dies_with_parent = dies_with_parent
        self._profiles = profiles
        # Its threads live as long as the provider: an agent that dies with its parent dies with the thread that made it
        # (prctl(2)).
        self._executor = ThreadPoolExecutor(WORKER_THREADS, thread_name_prefix="local-provider")
        self._waiting = 0
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    async def find(self, vmid: int) -> Machine | None:
        return await self._run(lambda: self._find(vmid))

    async def create(self, spec: MachineSpec) -> None:
        await self._run(lambda: self._create(spec))

    async def start(self, vmid: int) -> None:
        await self._run(lambda: self._start(vmid))

    async def locate(self, vmid: int) -> MachineAddress | None:
        return await self._run(lambda: self._locate(vmid))

    async def stop(self, vmid: int) -> None:
        await self._run(lambda: self._stop(vmid))

    async def destroy(self, vmid: int, *, operation_id: str) -> None:
        await self._run(lambda: self._destroy(vmid, operation_id))

    async def list_marked(self) -> list[Machine]:
        return await self._run(self._list_marked)

    async def agent_pid(self, vmid: int) -> int | None:
        """Of the agent, while it runs."""
        return await self._run(lambda: self._machine(vmid).pid())

    async def close(self) -> None:
        """The agents go on, unless they die with their parent: then they are ended in order."""
        if self._dies_with_parent:
            await asyncio.gather(*(self.stop(vmid) for vmid in list(self._processes)), return_exceptions=True)
        for process in self._processes.values():
            process.returncode = 0  # it lives on, and is not ours to wait for any more
        self._executor.shutdown(wait=False, cancel_futures=True)

    # -- in the executor ---------------------------------------------------------------------------------------------

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._waiting >= WAITING_CALLS:
            raise ProviderUnavailable(
                "Too much is under way; try again.", operator_message="the local provider is busy"
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except OSError as error:
            raise ProviderUnavailable("The instance's disk failed.", operator_message=str(error)) from error
        finally:
            self._waiting -= 1

    def _machine(self, vmid: int) -> LocalMachine:
        process = self._processes.get(vmid)
        if process is not None and process.poll() is not None:  # reaped
            self._processes.pop(vmid, None)
        return LocalMachine(self._folder / str(vmid))

    def _find(self, vmid: int) -> Machine | None:
        machine = self._machine(vmid)
        if not machine.exists:
            return None
        mark = machine.mark()
        return Machine(vmid, None if mark is None else mark.operation_id, machine.pid() is not None)

    def _create(self, spec: MachineSpec) -> None:
        machine = self._machine(spec.vmid)
        with LocalMachine(self._folder / "ide-ports").locked(), machine.locked():
            mark = MachineMark(spec.operation_id, spec.kind, spec.hostname, self._free_ide_port())
            if machine.make(mark, spec.agent_token):
                return
            known = machine.mark()
        if known is None or known.operation_id != spec.operation_id:
            raise VmidTaken(
                "The instance's place is taken.",
                operator_message=f"{machine.folder} is there and not of this operation",
            )

    def _start(self, vmid: int) -> None:
        machine = self._machine(vmid)
        with machine.locked():
            mark = machine.mark()
            if mark is None:
                raise ProviderRefused("The instance is gone.", operator_message=f"{machine.folder} has no mark")
            if machine.pid() is not None:
                return
            ended = self._processes.pop(vmid, None)
            if ended is not None:
                ended.wait()
            known_port = machine.port()
            options = self._profiles[mark.kind].agent_options(mark.hostname, mark.ide_port)
            if self._dies_with_parent:
                options = ("--die-with-parent", *options)
            port = known_port if known_port is not None and _is_free(known_port) else 0
            self._processes[vmid] = machine.launch(options, self._source_folder, port)

    def _locate(self, vmid: int) -> MachineAddress | None:
        machine = self._machine(vmid)
        mark, port = machine.mark(), machine.port()
        if mark is None or port is None or machine.pid() is None:
            return None
        return MachineAddress("127.0.0.1", port, mark.ide_port)

    def _stop(self, vmid: int) -> None:
        machine = self._machine(vmid)
        with machine.locked():
            machine.end()
        self._machine(vmid)

    def _destroy(self, vmid: int, operation_id: str) -> None:
        machine = self._machine(vmid)
        with machine.locked():
            if not machine.exists:
                return
            mark = machine.mark()
            if mark is None or mark.operation_id != operation_id:
                raise ProviderRefused(
                    "The instance could not be removed.",
                    operator_message=f"{machine.folder} carries another mark than {operation_id}: it is not touched",
                )
            machine.end()
            machine.remove()
        self._machine(vmid)

    def _list_marked(self) -> list[Machine]:
        if not self._folder.is_dir():
            return []
        for leftover in self._folder.glob(".gone-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        found = (self._find(int(each.name)) for each in self._folder.iterdir() if each.name.isdigit())
        return [machine for machine in found if machine is not None and machine.operation_id is not None]

    def _free_ide_port(self) -> int:
        """One that no machine here has, and that nobody listens on."""
        marks = (LocalMachine(each).mark() for each in self._folder.iterdir() if each.name.isdigit())
        taken = {mark.ide_port for mark in marks if mark is not None}
        start = os.getpid() * 37 % len(IDE_PORTS)
        for number in range(len(IDE_PORTS)):
            port = IDE_PORTS[(start + number) % len(IDE_PORTS)]
            if port not in taken and _is_free(port):
                return port
        raise ProviderRefused("There is no room for another instance.", operator_message="no port is free for an IDE")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
