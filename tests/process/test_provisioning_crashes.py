"""A real control plane with real agents, killed right before and right after every side effect, and started again.

Each process takes up what the one before left when it was killed, and is then killed itself at the next point: so every
start is also a recovery. In the end every machine serves its owner or is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.control_plane_process import ROOT as ROOT_FOLDER
from tests.control_plane_process import SECRETS, Answer, ControlPlaneProcess, call, login, run, until

pytestmark = pytest.mark.timeout(300)

ROOT = {"email": "root@example.org", "password": "correct horse battery"}
ADA = {"email": "ada@example.org", "password": "correct horse battery"}
SETTINGS = {
    **SECRETS,
    "HTTP_PORT": "0",
    "BCRYPT_COST": "4",
    "REGISTRATION_ENABLED": "true",
    "PROVIDER": "local",
    "AGENT_POLL_INTERVAL_SECONDS": "3600",
    "PROVISION_READY_INTERVAL_SECONDS": "0.05",
    "PROVISION_RETRY_SECONDS": "0.1",
    "OPERATION_LEASE_SECONDS": "0.5",
    "OPERATIONS_PER_USER": "100",
    "QUOTA_GAME_SERVERS": "100",
    "QUOTA_DEV_CONTAINERS": "100",
    "ORPHAN_SWEEP_SECONDS": "0.5",
    "ORPHAN_GRACE_SECONDS": "0",
}
PROVISIONING = (
    *("requested", "reserved", "creating", "booting", "agentConnected", "readyCheck", "persisting", "publishing"),
)


class Town:
    """One database and one folder of machines, with one control plane after the other."""

    def __init__(self, folder: Path, mongodb_uri: str) -> None:
        self.machines = folder / "machines"
        self.journal_file = folder / "journal"
        self._environment = {
            **SETTINGS,
            "MONGODB_URI": mongodb_uri,
            "MONGODB_DATABASE": f"test_{secrets.token_hex(8)}",
            "LOCAL_PROVIDER_DIR": str(self.machines),
            "JOURNAL": str(self.journal_file),
            "PYTHONPATH": str(ROOT_FOLDER),
        }
        self.url = ""
        self.token = ""

    @contextlib.contextmanager
    def process(
        self, die_at: str = "", die_name: str = "", die_by: signal.Signals = signal.SIGKILL, **settings: str
    ) -> Iterator[ControlPlaneProcess]:
        faults = {"DIE_AT": die_at, "DIE_NAME": die_name, "DIE_BY": die_by.name}
        environment = {**self._environment, **settings, **faults}
        program = (sys.executable, "-u", str(ROOT_FOLDER / "tests" / "crashing_control_plane.py"))
        with ControlPlaneProcess(program=program, **environment) as process:
            self.url = process.until_line(r"serving on (http://127\.0\.0\.1:\d+)").group(1)
            if not self.token:
                call(self.url, "POST", "/api/auth/register", ADA)
                self.token = login(self.url, ADA)
            yield process

    def make_administrator(self) -> None:
        made = run("create-admin", "--email", ROOT["email"], stdin=ROOT["password"] + "\n", **self._environment)
        assert made.returncode == 0, made.stderr

    def call(self, method: str, target: str, body: Any = None) -> Answer:
        return call(self.url, method, target, body, self.token)

    def ask(self, method: str, target: str, body: Any = None) -> None:
        """The process may be killed before it answers."""
        with contextlib.suppress(urllib.error.URLError, ConnectionError, json.JSONDecodeError, TimeoutError):
            assert self.call(method, target, body).status == 202

    def operations_named(self, name: str) -> list[Any]:
        return [each for each in self.call("GET", "/api/operations?limit=200").body["items"] if each["name"] == name]

    def ended(self, name: str, kind: str) -> Any:
        """The one operation of this kind on what has this name, once it is over."""

        def end() -> Any:
            found = [each for each in self.operations_named(name) if each["kind"] == kind]
            assert len(found) <= 1, found
            return found[0] if found and found[0]["finished"] else None

        return until(end)

    def servers(self) -> dict[str, Any]:
        return {each["name"]: each for each in self.call("GET", "/api/game/servers?limit=200").body["items"]}

    def serves(self, instance: Any) -> bool:
        target = f"/api/game/servers/{instance['id']}/console/command"
        return self.call("POST", target, {"command": "help"}).status == 200

    def machine_names(self) -> set[str]:
        return {each.name for each in self.machines.iterdir() if not each.name.startswith(".lock")}

    def agents(self) -> list[psutil.Process]:
        """Every reference agent on this folder, whoever knows of it."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "controlplane.refagent" in command and any(str(self.machines) in word for word in command):
                found.append(process)
        return found

    def journal(self, word: str) -> list[str]:
        return [line for line in self.journal_file.read_text().splitlines() if line.startswith(word)]

    def end(self) -> None:
        for agent in self.agents():
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                os.killpg(agent.pid, signal.SIGKILL)

    def require_peace(self) -> None:
        """Every machine serves its owner, and nothing else is there."""
        servers = self.servers()
        assert {str(each["vmid"]) for each in servers.values()} == self.machine_names()
        assert all(self.serves(each) for each in servers.values())
        until(lambda: len(self.agents()) == len(servers))  # between fork and exec a child looks like its agent

    def require_order(self) -> None:
        """Peace, and nothing was done twice on the way."""
        self.require_peace()
        for word in ("created", "destroyed"):
            assert [each for each, count in Counter(self.journal(word)).items() if count > 1] == []
        assert self.journal("unready") == []


@pytest.fixture
def town(tmp_path: Path, mongodb_uri: str) -> Iterator[Town]:
    town = Town(tmp_path, mongodb_uri)
    yield town
    town.end()


def die(process: ControlPlaneProcess) -> None:
    assert process.process.wait(120) == -signal.SIGKILL


def test_a_provisioning_is_carried_through_or_taken_back_wherever_its_process_is_killed(town: Town) -> None:
    points = [f"{when} {phase}" for phase in PROVISIONING for when in ("before", "after")]
    points += ["after provider create", "after provider start"]
    before = ""
    for point in points:
        with town.process(die_at=point, die_name=point) as process:
            if before:
                assert town.ended(before, "provision")["state"] == "succeeded", before
                assert town.serves(town.servers()[before]), before
            town.ask("POST", "/api/game/servers", {"name": point})
            die(process)
            before = point
    with town.process():
        assert town.ended(before, "provision")["state"] == "succeeded", before
        assert set(town.servers()) == set(points)
        town.require_order()


def test_a_rollback_is_finished_wherever_its_process_is_killed_and_nobody_ever_saw_the_instance(town: Town) -> None:
    steps = ("undo creating", "undo requested")
    points = [f"{when} {step}" for step in steps for when in ("before", "after")] + ["after readyCheck"]
    before = ""
    for point in points:
        # A dev container is never ready here: this is what makes it be taken back.
        with town.process(die_at=point, die_name=point, PROVISION_READY_SECONDS="2") as process:
            if before:
                assert town.ended(before, "provision")["state"] == "rolledBack", before
            town.ask("POST", "/api/dev", {"name": point})
            if point == "after readyCheck":  # never reached: the agent is alive, and never ready
                operation = town.ended(point, "provision")
                assert (operation["state"], operation["error"]["code"]) == ("rolledBack", "ready_timeout")
            else:
                die(process)
            before = point
            if process.process.poll() is None:
                assert town.call("GET", "/api/dev").body["items"] == []
                town.require_order()
                assert town.machine_names() == set()


def test_a_deletion_is_finished_wherever_its_process_is_killed(town: Town) -> None:
    phases = ("unpublishing", "stopping", "destroying")
    points = [f"{when} {phase}" for phase in phases for when in ("before", "after")] + ["after provider destroy"]
    with town.process():
        town.call("POST", "/api/game/servers", {"name": points[0]})
        assert town.ended(points[0], "provision")["state"] == "succeeded"
    before = ""
    for number, point in enumerate(points):
        with town.process(die_at=point, die_name=point) as process:
            if before:
                assert town.ended(before, "delete")["state"] == "deleted", before
            if number + 1 < len(points):
                town.call("POST", "/api/game/servers", {"name": points[number + 1]})
                assert town.ended(points[number + 1], "provision")["state"] == "succeeded"
            town.ask("DELETE", f"/api/game/servers/{town.servers()[point]['id']}")
            die(process)
            before = point
    with town.process():
        assert town.ended(before, "delete")["state"] == "deleted", before
        assert town.servers() == {}
        town.require_order()


def test_a_suspension_and_its_end_are_finished_wherever_their_process_is_killed(town: Town) -> None:
    town.make_administrator()
    steps = {
        "suspend": ("before unpublishing", "before suspending", "before stopping", "after provider stop"),
        "unsuspend": ("before starting", "after provider start", "after lifting", "before publishing"),
    }
    # One is suspended and let go again between two deaths, so that each begins where the other ended.
    points = [point for pair in zip(steps["suspend"], steps["unsuspend"], strict=True) for point in pair]
    with town.process():
        town.call("POST", "/api/game/servers", {"name": "Oakvale"})
        assert town.ended("Oakvale", "provision")["state"] == "succeeded"
    for point in points:
        action = "suspend" if point in steps["suspend"] else "unsuspend"
        with town.process(die_at=point, die_name="Oakvale") as process:
            as_root = login(town.url, ROOT)
            server = until(lambda: (found := town.servers()["Oakvale"])["state"]["operation"] is None and found)
            assert (server["state"]["suspension"] is None) == (action == "suspend"), point
            body = {"reason": "unpaid"} if action == "suspend" else None
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                call(town.url, "POST", f"/api/admin/instances/{server['id']}/{action}", body, as_root)
            die(process)
    with town.process():
        server = until(lambda: (found := town.servers()["Oakvale"])["state"]["operation"] is None and found)
        assert server["state"]["suspension"] is None
        town.require_order()


@contextlib.contextmanager
def held_still(town: Town, point: str) -> Iterator[None]:
    """A process that provisions Oakvale stands still at this point, as on a machine that has no time for it. After the
    block, in which the process before it serves, it goes on until it has seen what there is."""
    other = town.url
    with town.process(die_at=point, die_name="Oakvale", die_by=signal.SIGSTOP) as held:
        town.ask("POST", "/api/game/servers", {"name": "Oakvale"})
        until(lambda: psutil.Process(held.process.pid).status() == psutil.STATUS_STOPPED)
        own, town.url = town.url, other
        yield
        expected = set(town.servers())
        held.process.send_signal(signal.SIGCONT)
        town.url = own
        until(lambda: set(town.servers()) == expected)
    town.url = other


@pytest.mark.parametrize("point", ["after provider create", "before persisting"])
def test_who_is_held_still_for_longer_than_its_lease_does_nothing_again_when_it_goes_on(town: Town, point: str) -> None:
    with town.process():
        with held_still(town, point):
            assert town.ended("Oakvale", "provision")["state"] == "succeeded"
        assert set(town.servers()) == {"Oakvale"}
        town.require_order()


@pytest.mark.parametrize("point", ["before creating", "before persisting"])
def test_who_is_held_still_until_its_instance_is_deleted_brings_nothing_back(town: Town, point: str) -> None:
    with town.process():
        with held_still(town, point):
            assert town.ended("Oakvale", "provision")["state"] == "succeeded"
            town.ask("DELETE", f"/api/game/servers/{town.servers()['Oakvale']['id']}")
            assert town.ended("Oakvale", "delete")["state"] == "deleted"
        until(lambda: not town.machine_names())  # the machine of who found none goes as an orphan
        assert town.servers() == {}
        town.require_peace()
