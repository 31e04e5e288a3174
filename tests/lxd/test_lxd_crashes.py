"""A control plane on a real LXD, killed right before and right after every side effect, and started again.

Each process takes up what those before it left, and is killed itself at its point: what they were at is interrupted
again and again. In the end every container serves its owner or is gone.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import sys
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control_plane_process import SECRETS, Answer, ControlPlaneProcess, call, login, until
from tests.lxd.house import IMAGE, ROOT, Lxd, free_ports

pytestmark = pytest.mark.timeout(1500)

ADA = {"email": "ada@example.org", "password": "correct horse battery"}
PROVISIONING = (
    *("requested", "reserved", "creating", "booting", "agentConnected", "readyCheck", "persisting", "publishing"),
)
DELETION = ("unpublishing", "stopping", "destroying")
NEIGHBOUR = "cp-10002"
SECONDS = 240
# A container that runs is ready before somebody who is kept from looking has seen it run.
UNREADY_FOR_LONG = {"PROVISION_READY_CHECKS": "100", "PROVISION_READY_INTERVAL_SECONDS": "0.5"}
RUNNING = ("booting", "agentConnected", "readyCheck")


class Town:
    """One database and one LXD, with one control plane after the other."""

    def __init__(self, folder: Path, mongodb_uri: str, lxd: Lxd, seed: Path) -> None:
        self.journal_file = folder / "journal"
        self.lxd = lxd
        self._environment = {
            **SECRETS,
            "PYTHONPATH": str(ROOT),
            "MONGODB_URI": mongodb_uri,
            "MONGODB_DATABASE": f"test_{secrets.token_hex(8)}",
            "HTTP_PORT": "0",
            "BCRYPT_COST": "4",
            "REGISTRATION_ENABLED": "true",
            "AGENT_POLL_INTERVAL_SECONDS": "3600",
            "AGENT_TIMEOUT_SECONDS": "10",
            "PROVIDER": "lxd",
            "LXD_URL": lxd.url,
            "LXD_GAME_IMAGE": IMAGE,
            "LXD_GAME_SEED": str(seed),
            "LXD_ADDRESS": "proxy",
            "LXD_PROXY_FIRST_PORT": str(free_ports(100)),
            "LXD_SHUTDOWN_SECONDS": "3",
            "VMID_FIRST": "10000",
            "VMID_LAST": "10049",
            "PROVISION_READY_INTERVAL_SECONDS": "0.1",
            "PROVISION_READY_CHECKS": "2",
            "PROVISION_RETRY_SECONDS": "0.3",
            "PROVISION_ATTEMPTS": "50",
            "PROVISION_UNDO_ATTEMPTS": "50",
            "OPERATION_LEASE_SECONDS": "0.5",
            "OPERATION_CONCURRENCY": "16",
            "OPERATIONS_PER_USER": "100",
            "QUOTA_GAME_SERVERS": "100",
            "ORPHAN_SWEEP_SECONDS": "1",
            "ORPHAN_GRACE_SECONDS": "0",
            "JOURNAL": str(self.journal_file),
        }
        self.url = ""
        self.token = ""

    @contextlib.contextmanager
    def process(self, die_at: str = "", die_name: str = "", **settings: str) -> Iterator[ControlPlaneProcess]:
        environment = {**self._environment, **settings, "DIE_AT": die_at, "DIE_NAME": die_name}
        program = (sys.executable, "-u", str(ROOT / "tests" / "lxd" / "crashing_control_plane.py"))
        with ControlPlaneProcess(program=program, **environment) as process:
            self.url = process.until_line(r"serving on (http://127\.0\.0\.1:\d+)").group(1)
            if not self.token:
                call(self.url, "POST", "/api/auth/register", ADA)
                self.token = login(self.url, ADA)
            yield process

    def call(self, method: str, target: str, body: Any = None) -> Answer:
        return call(self.url, method, target, body, self.token)

    def ask(self, method: str, target: str, body: Any = None) -> None:
        """The process may be killed before it answers."""
        with contextlib.suppress(urllib.error.URLError, ConnectionError, json.JSONDecodeError, TimeoutError):
            assert self.call(method, target, body).status == 202

    def killed_at(self, point: str, name: str, method: str, target: str, body: Any = None) -> None:
        """A process that takes up what there is, is asked this, and is killed when what has this name is there."""
        with self.process(die_at=point, die_name=name) as process:
            self.ask(method, target, body)
            assert process.process.wait(SECONDS) == -signal.SIGKILL, point

    def killed_at_undo(self, point: str) -> None:
        """The same, of a provisioning that is canceled once its container runs."""
        with self.process(die_at=point, die_name=point, **UNREADY_FOR_LONG) as process:
            self.ask("POST", "/api/game/servers", {"name": point})

            def under_way() -> Any:
                found = [each for each in self.operations() if each["name"] == point]
                return found[0]["id"] if found[0]["state"] in RUNNING else None

            operation_id = until(under_way, seconds=SECONDS)
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                assert self.call("POST", f"/api/operations/{operation_id}/cancel").status in (200, 202)
            assert process.process.wait(SECONDS) == -signal.SIGKILL, point

    def operations(self) -> list[Any]:
        items: list[Any] = self.call("GET", "/api/operations?limit=200").body["items"]
        return items

    def until_all_ended(self) -> Counter[tuple[str, str]]:
        """How many operations of each kind ended how."""

        def all_ended() -> list[Any] | None:
            operations = self.operations()
            return operations if all(each["finished"] for each in operations) else None

        return Counter((each["kind"], each["state"]) for each in until(all_ended, seconds=SECONDS))

    def servers(self) -> dict[str, Any]:
        return {each["name"]: each for each in self.call("GET", "/api/game/servers?limit=200").body["items"]}

    def journal(self, word: str) -> list[str]:
        return [line for line in self.journal_file.read_text().splitlines() if line.startswith(word)]

    def require_order(self) -> None:
        """Every container serves its owner, nothing else is there, and the neighbour never noticed."""
        servers = self.servers()
        assert {f"cp-{each['vmid']}" for each in servers.values()} | {NEIGHBOUR} == set(self.lxd.names())
        for server in servers.values():
            command = self.call("POST", f"/api/game/servers/{server['id']}/console/command", {"command": "help"})
            assert command.status == 200, (server, command)
        assert [each for each, count in Counter(self.journal("destroyed")).items() if count > 1] == []
        assert self.journal("unready") == []
        assert self.lxd.get(f"/instances/{NEIGHBOUR}/state")["status"] == "Running"


def test_every_container_serves_its_owner_or_is_gone_wherever_the_process_is_killed(
    tmp_path: Path, mongodb_uri: str, lxd: Lxd, seed: Path
) -> None:
    town = Town(tmp_path, mongodb_uri, lxd, seed)
    lxd.make_neighbour(NEIGHBOUR)  # on a vmid that will be tried
    provisioning = [f"{when} {phase}" for phase in PROVISIONING for when in ("before", "after")]
    provisioning += ["after provider create", "after provider start"]
    undoing = [f"{when} undo {phase}" for phase in ("creating", "requested") for when in ("before", "after")]
    deletion = [f"{when} {phase}" for phase in DELETION for when in ("before", "after")] + ["after provider destroy"]

    for point in provisioning:
        town.killed_at(point, point, "POST", "/api/game/servers", {"name": point})
    for point in undoing:
        town.killed_at_undo(point)
    with town.process():
        ended = town.until_all_ended()
        assert ended == {("provision", "succeeded"): len(provisioning), ("provision", "canceled"): len(undoing)}
        assert set(town.servers()) == set(provisioning)
        town.require_order()
        servers = town.servers()

    for point, name in zip(deletion, servers, strict=False):
        town.killed_at(point, name, "DELETE", f"/api/game/servers/{servers[name]['id']}")
    with town.process():
        ended = town.until_all_ended()
        assert ended["delete", "deleted"] == len(deletion)
        town.require_order()
        for server in town.servers().values():
            town.ask("DELETE", f"/api/game/servers/{server['id']}")
        assert town.until_all_ended()["delete", "deleted"] == len(provisioning)
        town.require_order()
        assert lxd.names() == [NEIGHBOUR]
