"""`run.py serve`, an agent beside it, and a web app as the agent's code-server: processes of their own, all real.

The control plane can be ended and started again while agent, code-server and browser go on.
"""

from __future__ import annotations

import shlex
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.control_plane_process import SECRETS, ControlPlaneProcess, call, login, run, until
from tests.free_ports import free_port
from tests.refagent_process import TOKEN, AgentProcess

ADMIN = {"email": "root@example.org", "password": "correct horse battery"}
VMID = 201
ROOT_FOLDER = Path(__file__).resolve().parent.parent
START_SECONDS = 60
STAND_IN = (sys.executable, "-u", "-m", "controlplane.demo.web_ide")


def stand_in(port: int, folder: Path) -> list[str]:
    return [*STAND_IN, "--port", str(port), "--dir", str(folder)]


class IdePlane:
    """Use it in a `with`. `command` gives the IDE's command for a port and the folder that it edits (`files`)."""

    def __init__(self, folder: Path, command: Callable[[int, Path], list[str]] = stand_in) -> None:
        self._folder = folder
        self._command = command
        self.port, self.ide_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.files = folder / "agent" / "files"
        self._environment = {
            **SECRETS,
            "HTTP_PORT": str(self.port),
            "PUBLIC_URL": self.url,
            "DATA_DIR": str(folder / "database"),
            "AGENT_NETWORKS": "127.0.0.0/8",
            "AGENT_POLL_INTERVAL_SECONDS": "0.3",
            "DEV_IDE_HOST_SUFFIX": "localhost",
            "BCRYPT_COST": "4",
            # Nobody reads the output once it serves: a full pipe would keep the process from ending.
            "ACCESS_LOG": "errors",
            "LOG_LEVEL": "WARNING",
        }

    def __enter__(self) -> IdePlane:
        self.files.mkdir(parents=True)
        made = run("create-admin", "--email", ADMIN["email"], stdin=ADMIN["password"] + "\n", **self._environment)
        assert made.returncode == 0, made.stderr
        self.agent = AgentProcess(
            self._folder / "agent",
            ("/bin/sh", "-c", "echo workspace ready; exec cat"),
            *("--ready-pattern", "workspace ready", "--codeserver-port", str(self.ide_port)),
            *("--codeserver-command", shlex.join(self._command(self.ide_port, self.files))),
        )
        self._serve()
        registered = call(
            self.url,
            "POST",
            "/api/admin/instances",
            {
                "kind": "dev",
                "name": "Workshop",
                "vmid": VMID,
                "ownerId": self._admin_id(),
                "address": "127.0.0.1",
                "port": int(self.agent.url.rsplit(":", 1)[1]),
                "token": TOKEN,
                "idePort": self.ide_port,
            },
            self.token,
        )
        assert registered.status == 201, registered
        self.instance_id = str(registered.body["id"])
        until(lambda: call(self.url, "GET", f"/api/dev/{self.instance_id}/state", None, self.token).body["ready"])
        until(self._ide_listens, seconds=START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)
        self.agent.end()

    def _serve(self) -> None:
        self._process = ControlPlaneProcess("serve", **self._environment)
        self._process.until_line("listening on")
        until(lambda: call(self.url, "GET", "/readyz").status == 200, seconds=START_SECONDS)
        self.token = login(self.url, ADMIN)

    def _admin_id(self) -> str:
        return str(call(self.url, "GET", "/api/auth/me", None, self.token).body["id"])

    def _ide_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ide_port)) == 0

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """The control plane alone: `number` ends it, and another one begins on the same port."""
        self._process.stop(number)
        self._process.__exit__(None, None, None)
        self._serve()

    def open_url(self, mode: str) -> str:
        """An address that opens the IDE, once: `mode` is path or host."""
        answer = call(self.url, "POST", f"/api/dev/{self.instance_id}/ide-token", {"mode": mode}, self.token)
        assert answer.status == 200, answer
        url = str(answer.body["url"])
        return self.url + url if url.startswith("/") else url

    def address(self, mode: str) -> str:
        """Where the IDE begins, with the slash."""
        if mode == "host":
            return f"http://dev-{VMID}.localhost:{self.port}/"
        return f"{self.url}/__ide/{self.instance_id}/"
