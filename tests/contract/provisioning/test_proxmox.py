"""The Proxmox provider over HTTPS against a cluster that follows the published API: its containers, and others'."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from controlplane.errors import ProviderRefused, VmidTaken
from controlplane.models import Machine, MachineAddress
from controlplane.provisioning.proxmox import ProxmoxProvider
from tests.proxmox_house import SECRET, SPEC, VMID, Make, ours
from tests.proxmox_server import GIB, Guest, ProxmoxServer

# -- the way it goes when all is well --------------------------------------------------------------------------------


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
async def test_a_container_of_ours_that_appears_while_it_is_looked_for_is_ours(
    server: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    """As a clone does that Proxmox took in late, when nobody waited for its answer any more."""
    original = server._do_nextid

    def race(where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        server.guests.setdefault(VMID, ours(running=False))
        return original(where, parameters, fails)

    server._do_nextid = race  # type: ignore[method-assign]
    await provider.create(SPEC)
    assert server.asked("clone") == []
    assert await provider.find(VMID) == Machine(VMID, "op_first", False)


@pytest.mark.gen_test
async def test_templates_are_not_listed_as_ours(server: ProxmoxServer, provider: ProxmoxProvider) -> None:
    server.guests[9000].config["description"] = "controlplane mark=controlplane operation=op_template"
    assert await provider.list_marked() == []
