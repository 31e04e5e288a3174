"""The Proxmox provider over HTTPS against a cluster that follows the published API and fails as a real one does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from tornado.ioloop import IOLoop

from controlplane.errors import ProviderError, ProviderRefused, ProviderUnavailable, VmidTaken
from controlplane.models import InstanceKind, Machine, MachineAddress, MachineSpec
from controlplane.provisioning.proxmox import ProxmoxProvider
from controlplane.settings import Settings
from controlplane.wiring.providers import make_proxmox
from tests.control_plane_process import SECRETS
from tests.proxmox_server import GIB, TOKEN, Guest, ProxmoxServer
from tests.refagent_process import until

VMID = 105
SECRET = "a-secret-of-one-instance-0123456789"
SPEC = MachineSpec(
    vmid=VMID,
    operation_id="op_first",
    kind=InstanceKind.GAME,
    hostname="testholm",
    cores=2,
    memory_mib=1024,
    disk_gib=8,
    agent_token=SECRET,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ProxmoxServer]:
    with ProxmoxServer(tmp_path) as running:
        yield running


Make: TypeAlias = Callable[..., ProxmoxProvider]


@pytest.fixture
def make(server: ProxmoxServer, io_loop: IOLoop) -> Iterator[Make]:
    """Makes providers with other settings, and closes them at the end."""
    made: list[ProxmoxProvider] = []

    def make_one(**changes: str) -> ProxmoxProvider:
        env = {
            **SECRETS,
            "PROXMOX_URL": server.url,
            "PROXMOX_TOKEN": TOKEN,
            "PROXMOX_CA_FILE": str(server.ca_file),
            "PROXMOX_GAME_TEMPLATES": "9000,9001",
            "PROXMOX_DEV_TEMPLATES": "9001",
            "PROXMOX_CALL_SECONDS": "20",
            "PROXMOX_TASK_SECONDS": "20",
        }
        made.append(make_proxmox(Settings.from_env({**env, **changes})))
        return made[-1]

    yield make_one
    server.heal()
    for each in made:
        io_loop.run_sync(each.close)


@pytest.fixture
def provider(make: Make, io_loop: IOLoop) -> ProxmoxProvider:
    async def build() -> ProxmoxProvider:
        return make()

    return io_loop.run_sync(build)


# -- the way it goes when all is well --------------------------------------------------------------------------------


def ours(*, running: bool) -> Guest:
    """As `create` leaves it; it does not shut down by itself."""
    config = {"description": "controlplane mark=controlplane operation=op_first", "env": f"AGENT_TOKEN={SECRET}"}
    return Guest("pve1", config, running=running, stubborn=True)


@pytest.mark.gen_test
async def test_a_container_is_cloned_configured_started_found_and_destroyed(
    server: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    assert await provider.find(VMID) is None
    await provider.create(SPEC)
    config = server.guests[VMID].config
    assert (config["hostname"], config["cores"], config["memory"]) == ("testholm", 2, 1024)
    assert config["rootfs"] == f"local-lvm:vm-{VMID}-disk-0,size=8G"
    assert config["net0"] == "name=eth0,bridge=vmbr0,type=veth,firewall=1,ip=dhcp"
    assert config["env"] == f"LANG=C\0AGENT_TOKEN={SECRET}"
    assert config["tags"] == "controlplane;game"
    assert await provider.find(VMID) == Machine(VMID, "op_first", False)

    assert await provider.locate(VMID) is None
    await provider.start(VMID)
    await provider.start(VMID)
    assert await provider.locate(VMID) is None  # DHCP takes its time
    assert await provider.locate(VMID) == MachineAddress("10.9.0.5", 8081, 8080)
    assert await provider.list_marked() == [Machine(VMID, "op_first", True)]

    await provider.stop(VMID)
    await provider.stop(VMID)
    assert server.asked("shutdown") == [{"timeout": "60"}]
    assert server.asked("stop") == []
    await provider.start(VMID)
    await provider.destroy(VMID, operation_id="op_first")
    await provider.destroy(VMID, operation_id="op_first")
    assert VMID not in server.guests
    assert server.asked("destroy") == [{"force": "1", "purge": "1", "destroy-unreferenced-disks": "1"}]
    assert await provider.find(VMID) is None
    assert await provider.list_marked() == []
    await provider.stop(VMID)
    assert await provider.locate(VMID) is None


@pytest.mark.gen_test
async def test_a_creation_that_is_asked_for_again_does_nothing_more(
    server: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    await provider.create(SPEC)
    await provider.create(SPEC)
    assert len(server.asked("clone")) == len(server.asked("configure")) == 1


@pytest.mark.gen_test
async def test_the_node_with_the_most_free_memory_gets_it_and_what_was_placed_counts(
    server: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    server.nodes["pve1"]["mem"] = 36 * GIB  # 28 free; pve2 has 32
    for number in range(3):
        await provider.create(replace(SPEC, vmid=VMID + number, memory_mib=6 * 1024, disk_gib=2))
    assert [server.guests[VMID + number].node for number in range(3)] == ["pve2", "pve1", "pve2"]


@pytest.mark.gen_test
async def test_a_node_that_is_away_or_not_allowed_gets_nothing(server: ProxmoxServer, make: Make) -> None:
    server.nodes["pve1"]["status"] = "offline"
    only_one = make(PROXMOX_NODES="pve1")
    with pytest.raises(ProviderRefused) as full:
        await only_one.create(SPEC)
    assert "no room" in full.value.message
    assert "pve1" in full.value.operator_message
    provider = make()
    await provider.create(SPEC)
    assert server.guests[VMID].node == "pve2"
    with pytest.raises(ProviderRefused):
        await provider.create(replace(SPEC, vmid=VMID + 1, memory_mib=64 * 1024))
    assert VMID + 1 not in server.guests


@pytest.mark.gen_test
async def test_a_shared_template_is_cloned_to_another_node_and_a_full_clone_to_its_storage(
    server: ProxmoxServer,
    make: Make,
) -> None:
    server.shared_storage = True
    provider = make(
        PROXMOX_GAME_TEMPLATES="9001",
        PROXMOX_TEMPLATES_SHARED="true",
        PROXMOX_CLONE="full",
        PROXMOX_STORAGE="ceph",
        PROXMOX_POOL="games",
    )
    await provider.create(SPEC)
    assert server.guests[VMID].node == "pve1"
    (asked,) = server.asked("clone")
    assert (asked["full"], asked["target"], asked["storage"], asked["pool"]) == ("1", "pve1", "ceph", "games")


@pytest.mark.gen_test
async def test_the_address_plan_gives_each_vmid_its_own(server: ProxmoxServer, make: Make) -> None:
    provider = make(
        PROXMOX_SUBNET="10.20.0.0/24",
        PROXMOX_GATEWAY="10.20.0.1",
        PROXMOX_SUBNET_FIRST_VMID="100",
        PROXMOX_VLAN="12",
    )
    await provider.create(SPEC)
    network = server.guests[VMID].config["net0"]
    assert network == "name=eth0,bridge=vmbr0,type=veth,firewall=1,tag=12,ip=10.20.0.15/24,gw=10.20.0.1"
    assert await provider.locate(VMID) == MachineAddress("10.20.0.15", 8081, 8080)
    with pytest.raises(ProviderRefused) as outside:
        await provider.create(replace(SPEC, vmid=400))
    assert "PROXMOX_SUBNET" in outside.value.operator_message
    assert 400 not in server.guests


@pytest.mark.gen_test
async def test_clones_of_one_template_take_turns(server: ProxmoxServer, provider: ProxmoxProvider) -> None:
    specs = [replace(SPEC, vmid=VMID + number, operation_id=f"op_{number}", disk_gib=2) for number in range(5)]
    await asyncio.gather(*(provider.create(spec) for spec in specs))
    made = sorted(await provider.list_marked(), key=lambda machine: machine.vmid)
    assert made == [Machine(spec.vmid, spec.operation_id, False) for spec in specs]


@pytest.mark.gen_test
async def test_a_container_that_does_not_shut_down_is_stopped(server: ProxmoxServer, provider: ProxmoxProvider) -> None:
    await provider.create(SPEC)
    await provider.start(VMID)
    server.guests[VMID].stubborn = True
    await provider.stop(VMID)
    assert not server.guests[VMID].running
    assert len(server.asked("stop")) == 1


@pytest.mark.gen_test
async def test_a_container_that_moved_to_another_node_is_found_there(
    server: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    await provider.create(SPEC)
    server.guests[VMID].node = "pve2"
    await provider.start(VMID)
    assert server.guests[VMID].running


# -- what is not ours ------------------------------------------------------------------------------------------------


def neighbour(server: ProxmoxServer, kind: str, description: str = "") -> Guest:
    config = {"hostname": "theirs", "description": description, "rootfs": "local-lvm:vm-105-disk-0,size=4G"}
    guest = server.guests[VMID] = Guest("pve2", config, kind=kind, running=True)
    return guest


@pytest.mark.parametrize(
    ("kind", "description"),
    [
        ("lxc", ""),
        ("qemu", ""),
        ("lxc", "controlplane mark=staging operation=op_first"),
        ("lxc", "controlplane mark=controlplane operation=op_other"),
        ("hidden", ""),
    ],
)
@pytest.mark.gen_test
async def test_a_vmid_in_use_anywhere_in_the_cluster_is_taken_and_its_machine_untouched(
    server: ProxmoxServer, provider: ProxmoxProvider, kind: str, description: str
) -> None:
    guest = neighbour(server, "lxc" if kind == "hidden" else kind, description)
    before = dict(guest.config)
    if kind == "hidden":
        server.hidden.add(VMID)
    with pytest.raises(VmidTaken) as taken:
        await provider.create(SPEC)
    assert str(VMID) in taken.value.operator_message
    with pytest.raises(ProviderRefused):
        await provider.destroy(VMID, operation_id="op_first")
    found = await provider.find(VMID)
    assert found is not None
    assert found.operation_id != "op_first"
    assert server.guests[VMID] is guest
    assert guest.config == before
    assert not [name for name, _ in server.calls if name in ("clone", "configure", "resize", "stop", "destroy")]


@pytest.mark.gen_test
async def test_a_vmid_that_is_taken_between_the_look_and_the_clone_is_taken(
    server: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    original = server._do_clone

    def race(where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        neighbour(server, "qemu")
        return original(where, parameters, fails)

    server._do_clone = race  # type: ignore[method-assign]
    with pytest.raises(VmidTaken):
        await provider.create(SPEC)
    assert server.guests[VMID].kind == "qemu"


@pytest.mark.gen_test
async def test_templates_are_not_listed_as_ours(server: ProxmoxServer, provider: ProxmoxProvider) -> None:
    server.guests[9000].config["description"] = "controlplane mark=controlplane operation=op_template"
    assert await provider.list_marked() == []


# -- each call, each failure -----------------------------------------------------------------------------------------

HOW = ("unauthorized", "forbidden", "refused", "locked", "gateway", "dropped", "lost", "garbage")
NO = ("unauthorized", "forbidden", "refused")
# method of the provider: the calls that it makes, and of these the ones that begin a task
CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "find": (("resources", "config", "status"), ()),
    "create": (("resources", "nextid", "clone", "configure", "resize"), ("clone", "resize")),
    "start": (("resources", "config", "status", "start"), ("start",)),
    "locate": (("interfaces",), ()),
    "stop": (("config", "stop"), ("stop",)),
    "destroy": (("resources", "config", "destroy"), ("destroy",)),
    "list_marked": (("resources", "config", "status"), ()),
}
CASES = [
    (method, call, how)
    for method, (calls, tasks) in CALLS.items()
    for call in calls
    for how in (*HOW, *(("task",) if call in tasks else ()))
]
ACTS: dict[str, Callable[[ProxmoxProvider], Awaitable[Any]]] = {
    "find": lambda provider: provider.find(VMID),
    "create": lambda provider: provider.create(SPEC),
    "start": lambda provider: provider.start(VMID),
    "locate": lambda provider: provider.locate(VMID),
    "stop": lambda provider: provider.stop(VMID),
    "destroy": lambda provider: provider.destroy(VMID, operation_id="op_first"),
    "list_marked": lambda provider: provider.list_marked(),
}


def expected(method: str, call: str, how: str) -> type[ProviderError] | None:
    """None where the provider gets there in spite of it."""
    if method == "create" and call in ("configure", "resize"):
        return ProviderUnavailable  # a clone is there: this is no «nothing was done» any more
    if (method, call, how) in {("create", "clone", "locked"), ("start", "start", "lost"), ("stop", "stop", "lost")}:
        return {"clone": None}.get(call, ProviderUnavailable)
    if how == "task":
        return ProviderUnavailable if method == "destroy" else ProviderRefused
    return ProviderRefused if how in NO else ProviderUnavailable


@pytest.mark.parametrize(("method", "call", "how"), CASES)
@pytest.mark.gen_test
async def test_a_failure_is_told_as_what_it_is_and_another_try_gets_there(
    server: ProxmoxServer, make: Make, method: str, call: str, how: str
) -> None:
    if method != "create":
        server.guests[VMID] = ours(running=method in ("locate", "stop"))
    provider = make(PROXMOX_CALL_SECONDS="0.4") if how == "lost" else make()
    server.fail(call, how, times=9 if how == "dropped" else 1)  # a read is sent again on other connections
    wanted = expected(method, call, how)
    if wanted is None:
        await ACTS[method](provider)
    else:
        with pytest.raises(ProviderError) as failed:
            await ACTS[method](provider)
        assert type(failed.value) is wanted or (wanted is ProviderUnavailable and isinstance(failed.value, wanted))
        customer, operator = failed.value.message, failed.value.operator_message
        assert re.fullmatch(r"[A-Z][a-z ,]+\.", customer), "a sentence, without numbers or names of calls"
        assert re.search(r"/cluster/|/nodes/|task UPID:", operator), "the call at fault"
        assert SECRET not in operator
        assert TOKEN.partition("=")[2] not in operator
        if how == "task":
            assert "TASK ERROR" in operator
    server.heal()
    if wanted is ProviderRefused and method == "create":
        assert VMID not in server.guests, "a refusal leaves nothing"
    patient = make()
    await ACTS[method](patient)  # the operation's next try
    found = await patient.find(VMID)
    if method == "destroy":
        assert found is None
    else:
        assert found is not None
        assert found.operation_id == "op_first"
        assert found.is_running == (method in ("start", "locate"))
    assert len([guest for vmid, guest in server.guests.items() if vmid < 9000]) == (method != "destroy")


@pytest.mark.gen_test
async def test_a_clone_that_was_begun_and_not_answered_is_waited_for_not_made_twice(
    server: ProxmoxServer, make: Make
) -> None:
    provider = make(PROXMOX_CALL_SECONDS="0.4")
    server.fail("clone", "unheard")
    with pytest.raises(ProviderUnavailable):
        await provider.create(SPEC)
    assert await provider.find(VMID) == Machine(VMID, "op_first", False, is_complete=False)
    with pytest.raises(ProviderRefused):
        await provider.start(VMID)  # it has no secret yet
    again = asyncio.ensure_future(make().create(SPEC))

    async def is_looking() -> bool:
        return len(server.asked("config")) > 3

    await until(is_looking)
    (task,) = server.tasks.values()
    task.finish()
    await again
    assert len(server.asked("clone")) == 1
    assert server.guests[VMID].config["env"].endswith(SECRET)


@pytest.mark.gen_test
async def test_a_lock_that_stays_is_told_to_the_operator_with_what_frees_it(server: ProxmoxServer, make: Make) -> None:
    provider = make(PROXMOX_TASK_SECONDS="0.3")
    server.guests[VMID] = Guest(
        "pve1", {"description": "controlplane mark=controlplane operation=op_first", "lock": "create"}
    )
    with pytest.raises(ProviderUnavailable) as locked:
        await provider.create(SPEC)
    assert f"pct unlock {VMID}" in locked.value.operator_message


@pytest.mark.gen_test
async def test_a_task_that_does_not_end_in_time_is_named_and_its_outcome_unknown(
    server: ProxmoxServer, make: Make
) -> None:
    provider = make(PROXMOX_TASK_SECONDS="0.3")
    server.task_polls = 1000
    with pytest.raises(ProviderUnavailable) as slow:
        await provider.create(SPEC)
    assert "UPID:pve1:" in slow.value.operator_message
    assert "vzclone" in slow.value.operator_message


@pytest.mark.gen_test
async def test_a_question_about_a_task_that_gets_no_answer_is_asked_again(
    server: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    server.fail("task", "dropped", times=2)
    server.fail("log", "refused")
    await provider.create(SPEC)
    assert await provider.find(VMID) == Machine(VMID, "op_first", False)


@pytest.mark.gen_test
async def test_a_protected_container_is_refused_and_stays(server: ProxmoxServer, provider: ProxmoxProvider) -> None:
    await provider.create(SPEC)
    server.guests[VMID].config["protection"] = 1
    with pytest.raises(ProviderRefused) as refused:
        await provider.destroy(VMID, operation_id="op_first")
    assert "protection mode" in refused.value.operator_message
    assert VMID in server.guests


@pytest.mark.gen_test
async def test_a_server_with_a_certificate_of_another_authority_is_not_spoken_to(
    server: ProxmoxServer, make: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ProxmoxServer(tmp_path_factory.mktemp("impostor")) as impostor:
        provider = make(PROXMOX_URL=impostor.url)
        with pytest.raises(ProviderUnavailable) as refused:
            await provider.find(VMID)
        assert "certificate" in refused.value.operator_message
        assert impostor.calls == []


@pytest.mark.gen_test
async def test_an_answer_without_end_is_not_read(server: ProxmoxServer, provider: ProxmoxProvider) -> None:
    server.guests[VMID] = Guest("pve1", {"description": "x" * (9 << 20)})
    with pytest.raises(ProviderUnavailable) as refused:
        await provider.find(VMID)
    assert "bytes" in refused.value.operator_message
