"""The edge's routes: what is published and nothing else, in the form that Traefik takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.models import Instance, InstanceKind, Suspension
from controlplane.publishing.traefik import EdgePlan, dynamic_configuration

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = EdgePlan("http://10.0.0.1:8080", "ide.example", ("websecure",), ide_tls=True)


def instance(kind: InstanceKind, vmid: int, **changes: Any) -> Instance:
    plain = Instance(
        id=f"{kind.value}_{vmid}",
        kind=kind,
        vmid=vmid,
        name="somebody's `name`",
        owner_id="usr_1",
        address="10.0.0.5",
        port=8081,
        sealed_token=b"sealed",
        created_at=NOW,
    )
    return replace(plain, **changes)


def test_an_ide_host_leads_to_the_control_plane_and_never_to_the_container() -> None:
    found = dynamic_configuration([instance(InstanceKind.DEV, 201)], PLAN)
    assert found == {
        "http": {
            "routers": {
                "dev-201": {
                    "rule": "Host(`dev-201.ide.example`)",
                    "service": "controlplane",
                    "entryPoints": ["websecure"],
                    "tls": {},
                }
            },
            "services": {
                "controlplane": {"loadBalancer": {"servers": [{"url": "http://10.0.0.1:8080"}], "passHostHeader": True}}
            },
        }
    }


def test_a_games_port_leads_to_its_container_over_tcp_and_udp() -> None:
    found = dynamic_configuration([instance(InstanceKind.GAME, 101, game_port=25565, address="fd00::5")], PLAN)
    address = {"loadBalancer": {"servers": [{"address": "[fd00::5]:25565"}]}}
    assert found == {
        "tcp": {
            "routers": {"game-101": {"entryPoints": ["game-101"], "service": "game-101", "rule": "HostSNI(`*`)"}},
            "services": {"game-101": address},
        },
        "udp": {
            "routers": {"game-101-udp": {"entryPoints": ["game-101-udp"], "service": "game-101-udp"}},
            "services": {"game-101-udp": address},
        },
    }


@pytest.mark.parametrize(
    "changes",
    [{"published": False}, {"suspension": Suspension("unpaid", NOW)}, {"deleted_at": NOW}],
    ids=["not published", "suspended", "deleted"],
)
def test_what_is_not_active_has_no_route(changes: dict[str, Any]) -> None:
    instances = [
        instance(InstanceKind.DEV, 201, **changes),
        instance(InstanceKind.GAME, 101, game_port=25565, **changes),
    ]
    assert dynamic_configuration(instances, PLAN) == {}


def test_a_game_without_a_port_and_an_ide_without_a_suffix_have_no_route() -> None:
    instances = [instance(InstanceKind.DEV, 201, game_port=25565), instance(InstanceKind.GAME, 101)]
    assert dynamic_configuration(instances, replace(PLAN, ide_host_suffix=None)) == {}


def test_without_tls_the_routers_do_not_ask_for_it() -> None:
    found = dynamic_configuration([instance(InstanceKind.DEV, 201)], replace(PLAN, ide_tls=False))
    assert "tls" not in found["http"]["routers"]["dev-201"]
