"""`run.py demo` as a newcomer meets it: real processes, printed lines, demo.json, Ctrl-C, and a second start."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.control_plane_process import ControlPlaneProcess, are_gone, call, login, until
from tests.refagent_process import is_alive

pytestmark = pytest.mark.timeout(240)


def start(folder: Path) -> tuple[ControlPlaneProcess, dict[str, Any]]:
    demo = ControlPlaneProcess("demo", "--port", "0", "--data-dir", str(folder))
    url = demo.until_line(r"^ready (http://127\.0\.0\.1:\d+)$").group(1)
    description: dict[str, Any] = json.loads((folder / "demo.json").read_text())
    assert description["url"] == url
    return demo, description


def test_the_demo_shows_real_agents_and_tells_the_truth_about_them(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo, description = start(folder)
    with demo:
        assert stat.S_IMODE((folder / "demo.json").stat().st_mode) == 0o600
        assert set(description) == {"url", "admin", "customer", "gameServers", "devContainers", "agents"}
        assert (len(description["gameServers"]), len(description["devContainers"])) == (2, 1)
        assert all(set(agent) == {"id", "vmid", "url", "token", "pid"} for agent in description["agents"])
        output = "\n".join(demo.lines)
        assert description["customer"]["password"] in output
        assert sum(line.startswith("ready ") for line in demo.lines) == 1
        assert not [agent for agent in description["agents"] if agent["token"] in output]

        url, agent = description["url"], description["agents"][0]
        token = login(url, description["customer"])
        server = f"/api/game/servers/{agent['id']}"
        assert call(url, "POST", f"{server}/console/command", {"command": "help"}, token).status == 200
        assert call(url, "POST", f"{server}/stop", None, token).status == 202
        until(lambda: call(url, "GET", f"{server}/state", None, token).body["process"] == "stopped")
        assert call(url, "POST", f"{server}/start", None, token).status == 202
        until(lambda: call(url, "GET", f"{server}/state", None, token).body["ready"])

        os.kill(agent["pid"], signal.SIGKILL)
        state = until(
            lambda: (
                (seen := call(url, "GET", f"{server}/state", None, token).body)["connection"] == "disconnected" and seen
            )
        )
        assert (state["process"], state["stale"], state["ready"]) == ("running", True, False)
        assert not is_alive(agent["pid"])

        children = demo.children()
        assert len(children) >= 3
        assert demo.stop(signal.SIGINT) == 0
        assert are_gone(children)


def handshake_status(url: str, origin: str) -> int:
    """What a page of `origin` gets that opens a console."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(
            "GET",
            "/api/game/servers/gs_any/console",
            headers={
                "Origin": origin,
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
        )
        return connection.getresponse().status
    finally:
        connection.close()


def test_its_own_page_may_open_consoles_on_whichever_port_it_got_and_by_either_name(tmp_path: Path) -> None:
    demo, description = start(tmp_path / "demo")
    with demo:
        url = description["url"]
        port = urlsplit(url).port
        for origin in (url, f"http://localhost:{port}"):
            assert handshake_status(url, origin) == 101, origin
        for origin in ("http://127.0.0.1:8080", "http://127.0.0.1:0", f"http://evil.example:{port}"):
            assert handshake_status(url, origin) == 403, origin


def buy(url: str, token: str, plan: str) -> None:
    """As a person does on the pretended Stripe's page."""
    order = {"planId": plan, "interval": "month"}
    page = urlsplit(call(url, "POST", "/api/billing/checkout", order, token).body["url"])
    checkout = page.path.rpartition("/")[2]
    paid = call(f"http://{page.netloc}", "POST", f"/_control/checkout/{checkout}", {"outcome": "pay"})
    assert paid.status == 200
    until(lambda: call(url, "GET", "/api/billing", None, token).body["status"] == "active")


def test_a_second_start_keeps_users_instances_and_what_was_bought(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo, first = start(folder)
    with demo:
        buy(first["url"], login(first["url"], first["customer"]), "builder")
        assert demo.stop() == 0
    demo, second = start(folder)
    with demo:
        for key in ("admin", "customer", "gameServers", "devContainers"):
            assert first[key] == second[key]
        assert call(second["url"], "POST", "/api/auth/login", second["admin"]).status == 200
        token = login(second["url"], second["customer"])
        kept = call(second["url"], "GET", "/api/billing", None, token).body
        assert (kept["status"], kept["plan"]["id"], kept["access"]) == ("active", "builder", "full")
        ended = call(second["url"], "POST", "/api/billing/cancel", {}, token)
        assert ended.body["cancelAtPeriodEnd"] is True


def test_kill_9_of_the_demo_leaves_no_child_behind_and_the_folder_opens_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo, _ = start(folder)
    with demo:
        children = demo.children()
        demo.process.kill()
        demo.process.wait()
        until(lambda: are_gone(children))
    demo, _ = start(folder)
    with demo:
        assert demo.stop() == 0


def test_a_folder_in_use_is_reported_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo, _ = start(folder)
    with demo, ControlPlaneProcess("demo", "--port", "0", "--data-dir", str(folder)) as second:
        assert str(folder) in second.until_line(r"controlplane: .*in use").string
        assert second.process.wait(60) == 1
