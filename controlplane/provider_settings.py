"""Settings of the machine hosts, each read where its first one is set. `settings.Settings` holds them.

A field's name in capitals, after the prefix of its class, is the name of the environment variable.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from controlplane.errors import ConfigurationError
from controlplane.models import InstanceKind

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_MARK_LENGTH = 40
_MARK_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_HOSTS_FILE_BYTES = 1 << 20


class Reader(Protocol):
    """Typed access to the environment; each refusal names the variable (`settings` has it)."""

    def text(self, name: str, default: str) -> str: ...

    def number(self, name: str, default: float, *, low: float, high: float) -> float: ...

    def integer(self, name: str, default: int, *, low: int, high: int) -> int: ...

    def flag(self, name: str, default: bool) -> bool: ...

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str: ...

    def address(self, name: str, default: str) -> str: ...

    def networks(self, name: str, default: str) -> tuple[Network, ...]: ...

    def url(self, name: str, default: str) -> str: ...

    def file(self, name: str) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The container with `first_vmid` has the host number `first_host` of `subnet`, the next vmid the next one."""

    subnet: Network
    gateway: str
    first_vmid: int
    first_host: int

    def address(self, vmid: int) -> str | None:
        """An IP literal; None where the plan has none for this vmid: before its start, past its end, the gateway's."""
        number = vmid - self.first_vmid + self.first_host
        if vmid < self.first_vmid or not 0 < number < self.subnet.num_addresses - 1:
            return None
        address = str(self.subnet[number])
        return None if address == self.gateway else address


@dataclass(frozen=True, slots=True)
class ProxmoxSettings:
    """A Proxmox VE cluster. `token` is `user@realm!name=secret`; `templates` are vmids, and with `templates_shared`
    each can be cloned to any node; `address_plan` None means DHCP, `game_port` 0 that players connect nowhere."""

    url: str
    token: str = field(repr=False)
    ca_file: Path | None
    mark: str
    game_templates: tuple[int, ...]
    dev_templates: tuple[int, ...]
    templates_shared: bool
    clone: str
    storage: str
    pool: str
    nodes: frozenset[str]
    bridge: str
    vlan: int
    address_plan: AddressPlan | None
    agent_port: int
    ide_port: int
    game_port: int
    call_seconds: float
    task_seconds: float
    shutdown_seconds: int

    def templates(self, kind: InstanceKind) -> tuple[int, ...]:
        return self.game_templates if kind is InstanceKind.GAME else self.dev_templates


@dataclass(frozen=True, slots=True)
class LxdSettings:
    """LXD or Incus. `url` is unix:///path/to/socket or https://host:port; what lies in a seed folder is put into new
    containers."""

    url: str
    server_certificate_file: Path | None
    client_certificate_file: Path | None
    client_key_file: Path | None
    project: str
    mark: str
    game_image: str
    dev_image: str
    game_seed: Path | None
    dev_seed: Path | None
    secret: str
    token_path: str
    profiles: tuple[str, ...]
    storage_pool: str
    address: str
    bridge_interface: str
    proxy_address: str
    proxy_first_port: int
    proxy_first_vmid: int
    agent_port: int
    ide_port: int
    game_port: int
    call_seconds: float
    operation_seconds: float
    shutdown_seconds: int

    def image(self, kind: InstanceKind) -> str:
        return self.game_image if kind is InstanceKind.GAME else self.dev_image

    def seed(self, kind: InstanceKind) -> Path | None:
        return self.game_seed if kind is InstanceKind.GAME else self.dev_seed


@dataclass(frozen=True, slots=True)
class StaticHost:
    """One host of the pool. `token` is the secret of the agent that runs on it already; `generation` is counted up
    when it was wiped."""

    name: str
    address: str
    port: int
    token: str = field(repr=False)
    kinds: frozenset[InstanceKind]
    ide_port: int = 8080
    https: bool = False
    game_port: int | None = None
    generation: int = 1


@dataclass(frozen=True, slots=True)
class StaticSettings:
    hosts: tuple[StaticHost, ...]


def provider_setting_names() -> frozenset[str]:
    """Every environment variable that is read here."""
    names = {f"PROXMOX_{each.name.upper()}" for each in fields(ProxmoxSettings)} - {"PROXMOX_ADDRESS_PLAN"}
    names |= {"PROXMOX_SUBNET", "PROXMOX_GATEWAY", "PROXMOX_SUBNET_FIRST_VMID", "PROXMOX_SUBNET_FIRST_HOST"}
    names |= {f"LXD_{each.name.upper()}" for each in fields(LxdSettings)}
    return frozenset(names | {"STATIC_HOSTS_FILE"})


def read_proxmox(reader: Reader) -> ProxmoxSettings | None:
    """None without PROXMOX_URL. Raises ConfigurationError."""
    if not _is_set(reader, "PROXMOX_URL", "proxmox"):
        return None
    url = reader.url("PROXMOX_URL", "")
    if not url.startswith("https://"):
        raise ConfigurationError("PROXMOX_URL", "is not https: the token would travel in the open")
    return ProxmoxSettings(
        url=url,
        token=_proxmox_token(reader),
        ca_file=reader.file("PROXMOX_CA_FILE"),
        mark=_mark(reader, "PROXMOX_MARK"),
        game_templates=_vmids(reader, "PROXMOX_GAME_TEMPLATES"),
        dev_templates=_vmids(reader, "PROXMOX_DEV_TEMPLATES"),
        templates_shared=reader.flag("PROXMOX_TEMPLATES_SHARED", False),
        clone=reader.choice("PROXMOX_CLONE", "linked", ("linked", "full")),
        storage=reader.text("PROXMOX_STORAGE", ""),
        pool=reader.text("PROXMOX_POOL", ""),
        nodes=frozenset(_words(reader, "PROXMOX_NODES")),
        bridge=reader.text("PROXMOX_BRIDGE", "vmbr0"),
        vlan=reader.integer("PROXMOX_VLAN", 0, low=0, high=4094),
        address_plan=_address_plan(reader),
        agent_port=reader.integer("PROXMOX_AGENT_PORT", 8081, low=1, high=65535),
        ide_port=reader.integer("PROXMOX_IDE_PORT", 8080, low=1, high=65535),
        game_port=reader.integer("PROXMOX_GAME_PORT", 0, low=0, high=65535),
        call_seconds=reader.number("PROXMOX_CALL_SECONDS", 20.0, low=0.1, high=300),
        task_seconds=reader.number("PROXMOX_TASK_SECONDS", 600.0, low=0.1, high=7200),
        shutdown_seconds=reader.integer("PROXMOX_SHUTDOWN_SECONDS", 60, low=1, high=600),
    )


def read_lxd(reader: Reader) -> LxdSettings | None:
    """None without LXD_URL. Raises ConfigurationError."""
    if not _is_set(reader, "LXD_URL", "lxd"):
        return None
    url = reader.text("LXD_URL", "")
    if not url.startswith(("unix:///", "https://")):
        raise ConfigurationError("LXD_URL", "is neither unix:///path/to/socket nor https://host:port")
    settings = LxdSettings(
        url=url.rstrip("/"),
        server_certificate_file=reader.file("LXD_SERVER_CERTIFICATE_FILE"),
        client_certificate_file=reader.file("LXD_CLIENT_CERTIFICATE_FILE"),
        client_key_file=reader.file("LXD_CLIENT_KEY_FILE"),
        project=reader.text("LXD_PROJECT", "default"),
        mark=_mark(reader, "LXD_MARK"),
        game_image=reader.text("LXD_GAME_IMAGE", "controlplane-game"),
        dev_image=reader.text("LXD_DEV_IMAGE", "controlplane-dev"),
        game_seed=_folder(reader, "LXD_GAME_SEED"),
        dev_seed=_folder(reader, "LXD_DEV_SEED"),
        secret=reader.choice("LXD_SECRET", "file", ("file", "cloud-init")),
        token_path=_absolute(reader, "LXD_TOKEN_PATH", "/etc/controlplane-agent/token"),
        profiles=tuple(_words(reader, "LXD_PROFILES", "default")),
        storage_pool=reader.text("LXD_STORAGE_POOL", "default"),
        address=reader.choice("LXD_ADDRESS", "bridge", ("bridge", "proxy")),
        bridge_interface=reader.text("LXD_BRIDGE_INTERFACE", "eth0"),
        proxy_address=reader.address("LXD_PROXY_ADDRESS", "127.0.0.1"),
        proxy_first_port=reader.integer("LXD_PROXY_FIRST_PORT", 20_000, low=1024, high=65534),
        proxy_first_vmid=reader.integer("LXD_PROXY_FIRST_VMID", 10_000, low=1, high=999_999_999),
        agent_port=reader.integer("LXD_AGENT_PORT", 8081, low=1, high=65535),
        ide_port=reader.integer("LXD_IDE_PORT", 8080, low=1, high=65535),
        game_port=reader.integer("LXD_GAME_PORT", 0, low=0, high=65535),
        call_seconds=reader.number("LXD_CALL_SECONDS", 20.0, low=0.1, high=300),
        operation_seconds=reader.number("LXD_OPERATION_SECONDS", 300.0, low=0.1, high=7200),
        shutdown_seconds=reader.integer("LXD_SHUTDOWN_SECONDS", 30, low=1, high=600),
    )
    if url.startswith("https://"):
        for name, file in (
            ("LXD_SERVER_CERTIFICATE_FILE", settings.server_certificate_file),
            ("LXD_CLIENT_CERTIFICATE_FILE", settings.client_certificate_file),
            ("LXD_CLIENT_KEY_FILE", settings.client_key_file),
        ):
            if file is None:
                raise ConfigurationError(name, "is needed with an https LXD_URL")
    return settings


def read_static(reader: Reader) -> StaticSettings | None:
    """None without STATIC_HOSTS_FILE. Raises ConfigurationError."""
    _is_set(reader, "STATIC_HOSTS_FILE", "static")
    file = reader.file("STATIC_HOSTS_FILE")
    if file is None:
        return None
    try:
        if file.stat().st_size > _HOSTS_FILE_BYTES:
            raise ConfigurationError("STATIC_HOSTS_FILE", f"is larger than {_HOSTS_FILE_BYTES} bytes")
        rows = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError("STATIC_HOSTS_FILE", f"{file} cannot be read: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError("STATIC_HOSTS_FILE", f"{file} holds no list of hosts")
    hosts = tuple(_static_host(number, row, file.parent) for number, row in enumerate(rows, 1))
    for what, keys in (
        ("name", [host.name for host in hosts]),
        ("address and port", [(host.address, host.port) for host in hosts]),
    ):
        if len(set(keys)) != len(keys):
            raise ConfigurationError("STATIC_HOSTS_FILE", f"two hosts have the same {what}")
    return StaticSettings(hosts)


def _is_set(reader: Reader, name: str, provider: str) -> bool:
    if reader.text(name, ""):
        return True
    if reader.text("PROVIDER", "") == provider:
        raise ConfigurationError(name, f"is needed with PROVIDER={provider}")
    return False


_HOST_KEYS = frozenset(
    {"name", "address", "port", "token", "tokenFile", "kinds", "idePort", "https", "gamePort", "generation"}
)


def _static_host(number: int, row: Mapping[str, Any], folder: Path) -> StaticHost:
    if unknown := set(row) - _HOST_KEYS:
        raise ConfigurationError("STATIC_HOSTS_FILE", f"host {number} has unknown keys: {', '.join(sorted(unknown))}")
    try:
        token = row["token"] if "token" in row else (folder / row["tokenFile"]).read_text().strip()
        host = StaticHost(
            name=str(row["name"]),
            address=str(ipaddress.ip_address(row["address"])),
            port=int(row["port"]),
            token=str(token),
            kinds=frozenset(InstanceKind(kind) for kind in row.get("kinds", ("game", "dev"))),
            ide_port=int(row.get("idePort", 8080)),
            https=bool(row.get("https", False)),
            game_port=None if row.get("gamePort") is None else int(row["gamePort"]),
            generation=int(row.get("generation", 1)),
        )
    except KeyError as error:
        raise ConfigurationError("STATIC_HOSTS_FILE", f"host {number} has no {error.args[0]}") from error
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError("STATIC_HOSTS_FILE", f"host {number}: {error}") from error
    if not (host.name and host.token and host.kinds and 0 < host.port < 65536 and 0 < host.ide_port < 65536):
        raise ConfigurationError("STATIC_HOSTS_FILE", f"host {number}: a name, a token, a kind or a port is not valid")
    return host


def _proxmox_token(reader: Reader) -> str:
    token = reader.text("PROXMOX_TOKEN", "")
    name, _, secret = token.partition("=")
    if not (secret and name.count("!") == 1 and "@" in name.partition("!")[0] and token.isascii() and " " not in token):
        raise ConfigurationError("PROXMOX_TOKEN", "is not user@realm!name=secret")
    return token


def _mark(reader: Reader, name: str) -> str:
    mark = reader.text(name, "controlplane")
    if len(mark) > _MARK_LENGTH or not set(mark) <= _MARK_LETTERS:
        raise ConfigurationError(name, f"is not at most {_MARK_LENGTH} of a-z, 0-9 and -")
    return mark


def _words(reader: Reader, name: str, default: str = "") -> list[str]:
    return [word.strip() for word in reader.text(name, default).split(",") if word.strip()]


def _vmids(reader: Reader, name: str) -> tuple[int, ...]:
    words = _words(reader, name)
    if not words or not all(word.isdecimal() and 100 <= int(word) <= 999_999_999 for word in words):
        raise ConfigurationError(name, "is not a comma-separated list of vmids (100 to 999999999)")
    return tuple(int(word) for word in words)


def _address_plan(reader: Reader) -> AddressPlan | None:
    subnets = reader.networks("PROXMOX_SUBNET", "")
    if not subnets:
        return None
    if len(subnets) != 1:
        raise ConfigurationError("PROXMOX_SUBNET", "is more than one network")
    gateway = reader.address("PROXMOX_GATEWAY", "0.0.0.0")  # noqa: S104 - stands for none
    if ipaddress.ip_address(gateway) not in subnets[0]:
        raise ConfigurationError("PROXMOX_GATEWAY", f"{gateway} is not in PROXMOX_SUBNET")
    return AddressPlan(
        subnet=subnets[0],
        gateway=gateway,
        first_vmid=reader.integer("PROXMOX_SUBNET_FIRST_VMID", 10_000, low=100, high=999_999_999),
        first_host=reader.integer("PROXMOX_SUBNET_FIRST_HOST", 10, low=1, high=1 << 20),
    )


def _folder(reader: Reader, name: str) -> Path | None:
    value = reader.text(name, "")
    if not value:
        return None
    if not Path(value).is_dir():
        raise ConfigurationError(name, f"there is no folder {value}")
    return Path(value)


def _absolute(reader: Reader, name: str, default: str) -> str:
    value = reader.text(name, default)
    if not value.startswith("/") or value.endswith("/") or ".." in value.split("/"):
        raise ConfigurationError(name, f"{value!r} is not the absolute path of a file")
    return value
