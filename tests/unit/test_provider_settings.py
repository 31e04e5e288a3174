"""Settings of the machine hosts refuse by name, keep secrets out of sight, and plan addresses without overlap."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.errors import ConfigurationError
from controlplane.models import InstanceKind
from controlplane.provider_settings import AddressPlan
from controlplane.settings import Settings
from tests.control_plane_process import SECRETS

PROXMOX = {
    **SECRETS,
    "PROXMOX_URL": "https://pve.example:8006",
    "PROXMOX_TOKEN": "u@pve!t=hidden-secret",
    "PROXMOX_GAME_TEMPLATES": "9000, 9001",
    "PROXMOX_DEV_TEMPLATES": "9002",
}
LXD = {**SECRETS, "LXD_URL": "unix:///var/lib/incus/unix.socket"}


def test_without_its_first_setting_a_host_is_not_there() -> None:
    settings = Settings.from_env(SECRETS)
    assert (settings.proxmox, settings.lxd, settings.static) == (None, None, None)


def test_what_is_set_is_read() -> None:
    proxmox = Settings.from_env(PROXMOX).proxmox
    assert proxmox is not None
    assert proxmox.templates(InstanceKind.GAME) == (9000, 9001)
    assert proxmox.templates(InstanceKind.DEV) == (9002,)
    assert proxmox.address_plan is None
    lxd = Settings.from_env({**LXD, "LXD_PROFILES": "default,games"}).lxd
    assert lxd is not None
    assert lxd.profiles == ("default", "games")


@pytest.mark.parametrize(
    ("good", "name", "value"),
    [
        (PROXMOX, "PROXMOX_URL", "http://pve.example:8006"),
        (PROXMOX, "PROXMOX_TOKEN", ""),
        (PROXMOX, "PROXMOX_TOKEN", "u@pve=secret"),
        (PROXMOX, "PROXMOX_TOKEN", "u!t=secret"),
        (PROXMOX, "PROXMOX_CA_FILE", "/nowhere/ca.pem"),
        (PROXMOX, "PROXMOX_MARK", "Two Words"),
        (PROXMOX, "PROXMOX_GAME_TEMPLATES", ""),
        (PROXMOX, "PROXMOX_DEV_TEMPLATES", "99"),
        (PROXMOX, "PROXMOX_CLONE", "half"),
        (PROXMOX, "PROXMOX_VLAN", "4095"),
        (PROXMOX, "PROXMOX_SUBNET", "10.0.0.0/8,10.1.0.0/16"),
        ({**PROXMOX, "PROXMOX_SUBNET": "10.20.0.0/16"}, "PROXMOX_GATEWAY", "10.21.0.1"),
        ({**PROXMOX, "PROXMOX_SUBNET": "10.20.0.0/16"}, "PROXMOX_GATEWAY", ""),
        (LXD, "LXD_URL", "http://lxd.example"),
        ({**LXD, "LXD_URL": "https://lxd.example:8443"}, "LXD_SERVER_CERTIFICATE_FILE", ""),
        (LXD, "LXD_GAME_SEED", "/nowhere"),
        (LXD, "LXD_SECRET", "mail"),
        (LXD, "LXD_TOKEN_PATH", "etc/token"),
        (LXD, "LXD_TOKEN_PATH", "/etc/../token"),
        (LXD, "LXD_ADDRESS", "nowhere"),
        (LXD, "LXD_PROXY_ADDRESS", "localhost"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(good: dict[str, str], name: str, value: str) -> None:
    Settings.from_env({**good, "PROXMOX_SUBNET": "", "LXD_URL": LXD["LXD_URL"]})
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({**good, name: value})
    assert refused.value.setting == name


@pytest.mark.parametrize(
    ("provider", "name"), [("proxmox", "PROXMOX_URL"), ("lxd", "LXD_URL"), ("static", "STATIC_HOSTS_FILE")]
)
def test_the_provider_in_use_needs_its_settings(provider: str, name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({**SECRETS, "PROVIDER": provider})
    assert refused.value.setting == name


def test_secrets_do_not_show_in_repr(tmp_path: Path) -> None:
    host = {"name": "red", "address": "10.0.0.1", "port": 8081, "token": "hidden-too"}
    file = write(tmp_path, [host])
    shown = repr(Settings.from_env({**PROXMOX, "STATIC_HOSTS_FILE": str(file)}))
    assert "hidden-secret" not in shown
    assert "hidden-too" not in shown
    assert "pve.example" in shown


def write(folder: Path, content: Any) -> Path:
    file = folder / "hosts.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_the_static_hosts_are_read_with_their_tokens(tmp_path: Path) -> None:
    (tmp_path / "red.token").write_text("a-secret\n")
    file = write(
        tmp_path,
        [
            {"name": "red", "address": "10.0.0.1", "port": 8081, "tokenFile": "red.token", "kinds": ["game"]},
            {"name": "blue", "address": "fd00::2", "port": 8081, "token": "b", "idePort": 8443, "generation": 3},
        ],
    )
    static = Settings.from_env({**SECRETS, "STATIC_HOSTS_FILE": str(file)}).static
    assert static is not None
    red, blue = static.hosts
    assert (red.token, red.kinds, red.ide_port, red.generation) == ("a-secret", frozenset({InstanceKind.GAME}), 8080, 1)
    assert (blue.address, blue.kinds, blue.ide_port, blue.generation) == ("fd00::2", frozenset(InstanceKind), 8443, 3)


HOST = {"name": "red", "address": "10.0.0.1", "port": 8081, "token": "a-secret"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ({}, "no list of hosts"),
        ([], "no list of hosts"),
        ([HOST, {**HOST, "address": "10.0.0.2"}], "same name"),
        ([HOST, {**HOST, "name": "blue"}], "same address"),
        ([{**HOST, "adress": "10.0.0.1"}], "host 1 has unknown keys: adress"),
        ([{key: value for key, value in HOST.items() if key != "port"}], "host 1 has no port"),
        ([{key: value for key, value in HOST.items() if key != "token"}], "host 1 has no tokenFile"),
        ([HOST, {**HOST, "name": "blue", "address": "red.example"}], "host 2"),
        ([{**HOST, "port": 0}], "host 1"),
        ([{**HOST, "token": ""}], "host 1"),
        ([{**HOST, "kinds": ["vm"]}], "vm"),
        ([{**HOST, "kinds": []}], "host 1"),
    ],
)
def test_a_wrong_list_of_hosts_says_which_host_and_what(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({**SECRETS, "STATIC_HOSTS_FILE": str(write(tmp_path, content))})
    assert refused.value.setting == "STATIC_HOSTS_FILE"
    assert words in refused.value.message
    assert "a-secret" not in refused.value.message


def test_a_plan_gives_each_vmid_an_address_of_its_own_and_none_outside() -> None:
    plan = AddressPlan(ipaddress.ip_network("10.20.0.0/29"), "10.20.0.3", first_vmid=100, first_host=2)
    given = {vmid: plan.address(vmid) for vmid in range(98, 110)}
    assert {vmid: address for vmid, address in given.items() if address is not None} == {
        100: "10.20.0.2",
        102: "10.20.0.4",
        103: "10.20.0.5",
        104: "10.20.0.6",
    }
