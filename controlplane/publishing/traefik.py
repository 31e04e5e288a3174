"""The edge's routes as Traefik's dynamic configuration, computed from the instances that are published. Pure.

Traefik's HTTP provider asks for it again and again (https://doc.traefik.io/traefik/providers/http/). IDE hosts lead to
the control plane, which authenticates and proxies; a game's port leads to the container itself. Traefik's entry points
are static configuration: for each vmid of the range the operator names one as `ENTRY_POINT_OF_GAME` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from controlplane.models import Instance, InstanceKind

ENTRY_POINT_OF_GAME = "game-{vmid}"
"""Of a game's TCP port; that of its UDP port ends in `-udp`, since Traefik's entry points are of one protocol each."""

_CONTROL_PLANE = "controlplane"


@dataclass(frozen=True, slots=True)
class EdgePlan:
    """`ide_host_suffix` is None where no IDE is served by host. `control_plane_url` is how the edge reaches us.

    `ide_entry_points` are the names of Traefik's that take HTTP; `ide_tls` says whether they speak TLS.
    """

    control_plane_url: str
    ide_host_suffix: str | None
    ide_entry_points: tuple[str, ...]
    ide_tls: bool


def dynamic_configuration(instances: Iterable[Instance], plan: EdgePlan) -> dict[str, Any]:
    """Sections without an element are left out: Traefik refuses a configuration that has an empty one."""
    published = sorted((each for each in instances if _is_routed(each)), key=lambda each: each.vmid)
    games = [each for each in published if each.kind is InstanceKind.GAME and each.game_port is not None]
    configuration = {
        "http": _ide_hosts([each for each in published if each.kind is InstanceKind.DEV], plan),
        "tcp": _game_ports(games, suffix="", rule={"rule": "HostSNI(`*`)"}),
        "udp": _game_ports(games, suffix="-udp", rule={}),
    }
    return {name: section for name, section in configuration.items() if section}


def _is_routed(instance: Instance) -> bool:
    return instance.published and instance.suspension is None and instance.deleted_at is None


def _ide_hosts(instances: list[Instance], plan: EdgePlan) -> dict[str, Any]:
    if plan.ide_host_suffix is None or not instances:
        return {}
    tls: dict[str, Any] = {"tls": {}} if plan.ide_tls else {}
    return {
        "routers": {
            f"dev-{each.vmid}": {
                "rule": f"Host(`dev-{each.vmid}.{plan.ide_host_suffix}`)",
                "service": _CONTROL_PLANE,
                "entryPoints": list(plan.ide_entry_points),
                **tls,
            }
            for each in instances
        },
        "services": {
            # The proxy compares Origin with Host: Traefik must pass the browser's own.
            _CONTROL_PLANE: {"loadBalancer": {"servers": [{"url": plan.control_plane_url}], "passHostHeader": True}}
        },
    }


def _game_ports(instances: list[Instance], *, suffix: str, rule: dict[str, str]) -> dict[str, Any]:
    if not instances:
        return {}
    names = {each.id: ENTRY_POINT_OF_GAME.format(vmid=each.vmid) + suffix for each in instances}
    return {
        "routers": {
            names[each.id]: {"entryPoints": [names[each.id]], "service": names[each.id], **rule} for each in instances
        },
        "services": {
            names[each.id]: {"loadBalancer": {"servers": [{"address": _host_and_port(each)}]}} for each in instances
        },
    }


def _host_and_port(instance: Instance) -> str:
    address = f"[{instance.address}]" if ":" in instance.address else instance.address
    return f"{address}:{instance.game_port}"
