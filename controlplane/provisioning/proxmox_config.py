"""What a container's configuration says, and what it is to say: the mark, the network, the agent's secret. Pure.

The formats are those of pct.conf(5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from controlplane.models import MachineSpec
from controlplane.provider_settings import ProxmoxSettings

TOKEN_VARIABLE = "AGENT_TOKEN"  # noqa: S105 - a variable's name
_MARK = re.compile(r"^controlplane mark=(?P<mark>[a-z0-9-]+) operation=(?P<operation>\S+)$", re.MULTILINE)
_SIZE = re.compile(r"(?:^|,)size=(?P<number>\d+(?:\.\d+)?)(?P<unit>[KMGT]?)(?:,|$)")
_GIB = {"": 1 / (1 << 30), "K": 1 / (1 << 20), "M": 1 / (1 << 10), "G": 1.0, "T": 1024.0}


def mark_line(mark: str, operation_id: str) -> str:
    """What `description` says. It is there from the first moment of a clone on, as no tag is."""
    return f"controlplane mark={mark} operation={operation_id}"


def operation_of(config: Mapping[str, Any], mark: str) -> str | None:
    """The operation that made it, where this installation's mark is on it."""
    found = _MARK.search(str(config.get("description") or ""))
    return found["operation"] if found is not None and found["mark"] == mark else None


def wanted(
    spec: MachineSpec, settings: ProxmoxSettings, *, address: str | None, present: Mapping[str, Any]
) -> dict[str, str | int]:
    """The parameters of the configuration call. `present` is the clone's configuration: other variables of its
    environment stay. `address` None means DHCP."""
    return {
        "hostname": spec.hostname,
        "cores": spec.cores,
        "memory": spec.memory_mib,
        "onboot": 1,
        "description": mark_line(settings.mark, spec.operation_id),
        "tags": f"{settings.mark};{spec.kind.value}",
        "net0": _network(settings, address),
        "env": _environment(str(present.get("env") or ""), spec.agent_token),
    }


def is_complete(config: Mapping[str, Any]) -> bool:
    """Whether it has the agent's secret, which comes last."""
    return any(each.startswith(f"{TOKEN_VARIABLE}=") for each in str(config.get("env") or "").split("\0"))


def is_smaller(config: Mapping[str, Any], disk_gib: int) -> bool:
    """Whether the root disk is smaller than it is to be; a larger one stays, as disks do not shrink."""
    found = _SIZE.search(str(config.get("rootfs") or ""))
    return found is None or float(found["number"]) * _GIB[found["unit"]] < disk_gib


def reachable_address(interfaces: Any) -> str | None:
    """From the answer of `…/interfaces`: IPv4 before IPv6, neither loopback nor link-local."""
    found = []
    for interface in interfaces or []:
        if interface.get("name") == "lo":
            continue
        written = [interface.get("inet"), interface.get("inet6")]
        written += [each.get("ip-address") for each in interface.get("ip-addresses") or []]
        for text in written:
            try:
                address = ipaddress.ip_address(str(text).partition("/")[0])
            except ValueError:
                continue
            if not (address.is_loopback or address.is_link_local):
                found.append(address)
    found.sort(key=lambda address: address.version)
    return str(found[0]) if found else None


def _network(settings: ProxmoxSettings, address: str | None) -> str:
    parts = ["name=eth0", f"bridge={settings.bridge}", "type=veth", "firewall=1"]
    if settings.vlan:
        parts.append(f"tag={settings.vlan}")
    plan = settings.address_plan
    if plan is None or address is None:
        return ",".join([*parts, "ip=dhcp"])
    six = "6" if plan.subnet.version == 6 else ""
    return ",".join([*parts, f"ip{six}={address}/{plan.subnet.prefixlen}", f"gw{six}={plan.gateway}"])


def _environment(present: str, token: str) -> str:
    """A list that is separated by NUL."""
    others = [each for each in present.split("\0") if each and not each.startswith(f"{TOKEN_VARIABLE}=")]
    return "\0".join([*others, f"{TOKEN_VARIABLE}={token}"])
