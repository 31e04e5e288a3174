"""The local provider with real agents: every call twice, nobody else's folder, found again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from controlplane.errors import ProviderRefused, VmidTaken
from controlplane.models import InstanceKind, Machine, MachineAddress, MachineSpec
from controlplane.provisioning.local import LocalProvider
from controlplane.provisioning.local_workloads import PROFILES, WorkloadProfile
from tests.announced_process import ROOT
from tests.control_plane_process import call
from tests.free_ports import free_port
from tests.refagent_process import is_alive, until, until_gone

SECRET = "a-secret-of-sixteen-and-more"
SHELL = dict.fromkeys(InstanceKind, PROFILES[InstanceKind.DEV])


def spec(vmid: int = 101, operation_id: str = "op_1", kind: InstanceKind = InstanceKind.DEV) -> MachineSpec:
    return MachineSpec(vmid, operation_id, kind, f"dev-{vmid}", 1, 1024, 8, SECRET)


@asynccontextmanager
async def provider(folder: Path, **options: Any) -> AsyncIterator[LocalProvider]:
    """Its machines are removed at the end."""
    made = LocalProvider(folder, ROOT, **{"profiles": SHELL, **options})
    try:
        yield made
    finally:
        for machine in await made.list_marked():
            await made.destroy(machine.vmid, operation_id=machine.operation_id or "")
        await made.close()


async def started(local: LocalProvider, vmid: int = 101) -> MachineAddress:
    await local.create(spec(vmid))
    await local.start(vmid)
    where = await local.locate(vmid)
    assert where is not None
    return where


async def until_it_works(local: LocalProvider) -> tuple[psutil.Process, list[psutil.Process]]:
    """The agent of machine 101, and all processes below it once its workload is there."""
    agent = psutil.Process(await local.agent_pid(101))

    async def family() -> list[psutil.Process]:
        below = agent.children(recursive=True)
        return below if any(name_of(each) == "sh" for each in below) else []

    return agent, await until(family)


def name_of(process: psutil.Process) -> str:
    """Nothing where it has gone meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


@pytest.mark.gen_test
async def test_a_machine_is_made_started_stopped_and_destroyed_and_each_call_may_come_twice(tmp_path: Path) -> None:
    async with provider(tmp_path / "machines") as local:
        assert await local.find(101) is None
        for _ in range(2):
            await local.create(spec())
        assert await local.find(101) == Machine(101, "op_1", False)
        assert await local.locate(101) is None
        for _ in range(2):
            await local.start(101)
        pid = await local.agent_pid(101)
        assert pid is not None
        assert os.getpgid(pid) == pid
        where = await local.locate(101)
        assert where is not None
        url = f"http://{where.address}:{where.port}"
        assert (await asyncio.to_thread(call, url, "GET", "/health", None, SECRET)).status == 200
        assert (await asyncio.to_thread(call, url, "GET", "/health", None, "another")).status == 401
        for _ in range(2):
            await local.stop(101)
        assert await local.find(101) == Machine(101, "op_1", False)
        await until_gone(pid)
        for _ in range(2):
            await local.destroy(101, operation_id="op_1")
        assert await local.find(101) is None
        await local.stop(101)


@pytest.mark.gen_test
async def test_the_secret_is_readable_by_its_owner_alone_and_on_no_command_line(tmp_path: Path) -> None:
    async with provider(tmp_path / "machines") as local:
        await started(local)
        token = tmp_path / "machines" / "101" / "token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        agent, below = await until_it_works(local)
        for each in (agent, *below):
            with contextlib.suppress(psutil.NoSuchProcess):  # a shell's short helper
                assert SECRET not in " ".join(each.cmdline() + list(each.environ().values()))


@pytest.mark.gen_test
async def test_a_folder_of_somebody_else_is_neither_taken_nor_removed(tmp_path: Path) -> None:
    folder = tmp_path / "machines"
    (folder / "102").mkdir(parents=True)
    (folder / "102" / "thesis.txt").write_text("precious")
    async with provider(folder) as local:
        await local.create(spec(101, "op_other"))
        for vmid in (101, 102):
            with pytest.raises(VmidTaken):
                await local.create(spec(vmid))
            with pytest.raises(ProviderRefused):
                await local.destroy(vmid, operation_id="op_1")
        assert await local.find(102) == Machine(102, None, False)
        assert [machine.vmid for machine in await local.list_marked()] == [101]
        assert (folder / "102" / "thesis.txt").read_text() == "precious"


@pytest.mark.gen_test
async def test_one_of_many_at_once_makes_a_machine_and_no_two_share_a_port(tmp_path: Path) -> None:
    async with provider(tmp_path / "machines") as local:
        racers = [local.create(spec(101, f"op_{number}")) for number in range(8)]
        results = await asyncio.gather(*racers, return_exceptions=True)
        assert results.count(None) == 1
        assert sum(isinstance(result, VmidTaken) for result in results) == 7
        await asyncio.gather(*(local.create(spec(vmid)) for vmid in range(200, 204)))
        await asyncio.gather(*(local.start(vmid) for vmid in range(200, 204)))
        places = [await local.locate(vmid) for vmid in range(200, 204)]
        ports = [port for where in places if where is not None for port in (where.port, where.ide_port)]
        assert len(set(ports)) == 8


@pytest.mark.gen_test
async def test_an_agent_outlives_its_control_plane_and_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "machines"
    async with provider(folder) as local:
        where = await started(local)
        pid = await local.agent_pid(101)
        another = LocalProvider(folder, ROOT, profiles=SHELL)
        assert await another.find(101) == Machine(101, "op_1", True)
        await another.start(101)
        assert (await another.agent_pid(101), await another.locate(101)) == (pid, where)
        await another.stop(101)
        await another.close()
        assert not is_alive(pid or 0)
        assert await local.find(101) == Machine(101, "op_1", False)


@pytest.mark.gen_test
async def test_an_agent_that_was_killed_stays_dead_until_it_is_started_and_comes_back_where_it_was(
    tmp_path: Path,
) -> None:
    async with provider(tmp_path / "machines") as local:
        await local.create(spec())
        port = free_port()  # the kernel may give one of its own to somebody else while the agent is dead
        (tmp_path / "machines" / "101" / "agent.out").write_text(f"refagent listening on http://127.0.0.1:{port}\n")
        await local.start(101)
        where = await local.locate(101)
        assert where is not None
        assert where.port == port
        pid = await local.agent_pid(101)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        async def is_dead() -> bool:
            machine = await local.find(101)
            return machine is not None and not machine.is_running

        await until(is_dead)
        assert await local.locate(101) is None
        await local.start(101)
        assert await local.locate(101) == where


@pytest.mark.gen_test
async def test_a_pid_that_was_used_again_is_not_taken_for_the_agent(tmp_path: Path) -> None:
    async with provider(tmp_path / "machines") as local:
        await started(local)
        await local.stop(101)
        bystander = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
        file = tmp_path / "machines" / "101" / "process"
        _, boot, began = file.read_text().split()
        file.write_text(f"{bystander.pid} {boot} {began}\n")
        assert await local.find(101) == Machine(101, "op_1", False)
        await local.destroy(101, operation_id="op_1")
        await bystander.communicate(b"you may go\n")
        assert bystander.returncode == 0


@pytest.mark.gen_test
async def test_destroying_takes_the_workload_along_and_leaves_no_process(tmp_path: Path) -> None:
    async with provider(tmp_path / "machines") as local:
        await started(local)
        agent, below = await until_it_works(local)
        await local.destroy(101, operation_id="op_1")
        for each in (agent, *below):
            await until_gone(each.pid)
        assert [each for each in (tmp_path / "machines").iterdir() if not each.name.startswith(".lock")] == []


def test_a_profile_fills_in_the_machines_own_words_and_offers_an_editor_where_it_has_one() -> None:
    profile = WorkloadProfile(("run", "{name}"), "up", "exit", codeserver="code-server --port {ide_port}")
    options = profile.agent_options("dev-1", 20_001)
    assert options[-3:] == ("--", "run", "dev-1")
    assert options[options.index("--codeserver-command") + 1] == "code-server --port 20001"
    assert options[options.index("--codeserver-port") + 1] == "20001"
    plain = WorkloadProfile(("run",), "up", "exit").agent_options("dev-1", 20_001)
    assert "--codeserver-command" not in plain
