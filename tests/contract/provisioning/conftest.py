"""A cluster and providers on it, for the tests of the Proxmox provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from controlplane.provisioning.proxmox import ProxmoxProvider
from controlplane.settings import Settings
from controlplane.wiring.providers import make_proxmox
from tests.control_plane_process import SECRETS
from tests.proxmox_house import Make
from tests.proxmox_server import TOKEN, ProxmoxServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ProxmoxServer]:
    with ProxmoxServer(tmp_path) as running:
        yield running


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

    built: ProxmoxProvider = io_loop.run_sync(build)
    return built
