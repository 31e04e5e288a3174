"""What a Proxmox configuration says of a container is read strictly: a mark is not guessed, an address not invented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.models import InstanceKind, MachineSpec
from controlplane.provider_settings import ProxmoxSettings
from controlplane.provisioning.proxmox_config import (
    is_complete,
    is_smaller,
    mark_line,
    operation_of,
    reachable_address,
    wanted,
)
from controlplane.settings import Settings
from tests.control_plane_process import SECRETS

SPEC = MachineSpec(105, "op_1", InstanceKind.DEV, "testholm", 2, 1024, 8, "a-secret")


def settings(**changes: str) -> ProxmoxSettings:
    env = {
        **SECRETS,
        "PROXMOX_URL": "https://pve.example:8006",
        "PROXMOX_TOKEN": "u@pve!t=s",
        "PROXMOX_GAME_TEMPLATES": "9000",
        "PROXMOX_DEV_TEMPLATES": "9000",
        **changes,
    }
    proxmox = Settings.from_env(env).proxmox
    assert proxmox is not None
    return proxmox


def test_a_mark_is_read_back_as_proxmox_stores_it() -> None:
    line = mark_line("controlplane", "op_1")
    for description in (line, line + "\n", f"a note\n{line}\nanother note\n"):
        assert operation_of({"description": description}, "controlplane") == "op_1"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"description": ""},
        {"description": "controlplane mark=staging operation=op_1"},
        {"description": "see controlplane mark=controlplane operation=op_1"},
        {"description": "controlplane mark=controlplane operation="},
        {"tags": "controlplane"},
    ],
)
def test_what_is_no_mark_of_this_installation_is_none(config: dict[str, Any]) -> None:
    assert operation_of(config, "controlplane") is None


@pytest.mark.parametrize(
    ("environment", "complete"),
    [
        (None, False),
        ("LANG=C", False),
        ("MY_AGENT_TOKEN=x", False),
        ("AGENT_TOKEN=x", True),
        ("LANG=C\0AGENT_TOKEN=x", True),
    ],
)
def test_a_container_with_its_secret_is_complete(environment: str | None, complete: bool) -> None:
    assert is_complete({} if environment is None else {"env": environment}) is complete


def test_other_variables_stay_and_an_older_secret_goes() -> None:
    parameters = wanted(SPEC, settings(), address=None, present={"env": "LANG=C\0AGENT_TOKEN=old\0X=a=b"})
    assert parameters["env"] == "LANG=C\0X=a=b\0AGENT_TOKEN=a-secret"
    assert wanted(SPEC, settings(), address=None, present={})["env"] == "AGENT_TOKEN=a-secret"


@pytest.mark.parametrize(
    ("changes", "address", "network"),
    [
        ({}, None, "ip=dhcp"),
        (
            {"PROXMOX_SUBNET": "10.0.0.0/8", "PROXMOX_GATEWAY": "10.0.0.1"},
            "10.0.0.7",
            "ip=10.0.0.7/8,gw=10.0.0.1",
        ),
        (
            {"PROXMOX_SUBNET": "fd00::/64", "PROXMOX_GATEWAY": "fd00::1", "PROXMOX_VLAN": "7"},
            "fd00::9",
            "tag=7,ip6=fd00::9/64,gw6=fd00::1",
        ),
    ],
)
def test_the_network_is_written_as_pct_conf_has_it(changes: dict[str, str], address: str | None, network: str) -> None:
    parameters = wanted(SPEC, settings(**changes), address=address, present={})
    assert parameters["net0"] == f"name=eth0,bridge=vmbr0,type=veth,firewall=1,{network}"


@pytest.mark.parametrize(
    ("rootfs", "smaller"),
    [
        ("local-lvm:vm-1-disk-0,size=2G", True),
        ("local-lvm:vm-1-disk-0,size=8G", False),
        ("local-lvm:vm-1-disk-0,size=8192M,acl=1", False),
        ("local-lvm:vm-1-disk-0,size=8191M", True),
        ("local-lvm:vm-1-disk-0,size=1T", False),
        ("local-lvm:vm-1-disk-0", True),
    ],
)
def test_a_disk_is_only_ever_made_larger(rootfs: str, smaller: bool) -> None:
    assert is_smaller({"rootfs": rootfs}, SPEC.disk_gib) is smaller
    assert is_smaller({"rootfs": rootfs}, replace(SPEC, disk_gib=0).disk_gib) is ("size=" not in rootfs)


@pytest.mark.parametrize(
    ("interfaces", "address"),
    [
        (None, None),
        ([{"name": "lo", "inet": "127.0.0.1/8"}], None),
        ([{"name": "eth0", "inet6": "fe80::1/64"}], None),
        ([{"name": "eth0", "inet": "10.0.0.5/16", "inet6": "fd00::5/64"}], "10.0.0.5"),
        ([{"name": "eth0", "inet6": "fd00::5/64"}], "fd00::5"),
        ([{"name": "eth0", "ip-addresses": [{"ip-address": "10.0.0.6", "prefix": 16}]}], "10.0.0.6"),
        ([{"name": "eth0", "inet": "169.254.1.1/16"}, {"name": "eth1", "inet": "10.0.0.7/16"}], "10.0.0.7"),
        ([{"name": "eth0", "inet": "nonsense"}], None),
    ],
)
def test_an_address_is_one_that_others_can_reach(interfaces: Any, address: str | None) -> None:
    assert reachable_address(interfaces) == address
