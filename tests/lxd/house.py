"""A real LXD for the tests of `lxd-check`: the daemon, the agent that is put into its containers, and a look at them
that shares nothing with the adapter."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import psutil
import tornado

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = "controlplane-test"
TOKEN_PATH = "/etc/controlplane-agent/token"
AGENT_PORT = 8081
INIT = f"""#!/bin/sh
set -e
if [ ! -d /srv/code ]; then
  mkdir -p /srv/code.new
  python3 -m tarfile -e /srv/agent.tar.gz /srv/code.new
  mv /srv/code.new /srv/code
fi
export PYTHONPATH=/srv/code
exec python3 -m controlplane.refagent --port {AGENT_PORT} --token-file {TOKEN_PATH} --dir /srv/agent \\
  --ready-pattern 'World ready' --stop-line quit -- python3 -u -m controlplane.demo.line_game Testholm
"""


def make_seed(folder: Path) -> Path:
    """The reference agent with what it needs, as one archive, and the start script that the test image runs."""
    inside = folder / "srv"
    inside.mkdir(parents=True)
    with tarfile.open(inside / "agent.tar.gz", "w:gz", compresslevel=3) as archive:
        for package in ("controlplane/refagent", "controlplane/demo"):
            archive.add(ROOT / package, package, filter=_sources)
        archive.addfile(tarfile.TarInfo("controlplane/__init__.py"), io.BytesIO())
        for module in (tornado, psutil):
            assert module.__file__ is not None
            archive.add(Path(module.__file__).parent, module.__name__, filter=_sources)
    (inside / "init").write_text(INIT)
    (inside / "init").chmod(0o755)
    return folder


def _sources(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = entry.name.rsplit("/", 1)[-1]
    is_wanted = (entry.isdir() and name not in ("test", "tests", "__pycache__")) or name.endswith((".py", ".so"))
    return entry if is_wanted else None


class Lxd:
    """The daemon that `script` starts on `folder`. `get` and `call` speak to it over its socket."""

    def __init__(self, script: Path, folder: Path) -> None:
        self._script = script
        self.folder = folder
        self.socket = ""
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        started = subprocess.run(
            ["bash", str(self._script), str(self.folder)], capture_output=True, text=True, timeout=300, check=False
        )
        assert started.returncode == 0, f"LXD does not start: {started.stderr[-2000:]}"
        self.socket = started.stdout.strip().splitlines()[-1]

    def stop(self) -> None:
        """And remove every container."""
        subprocess.run(["bash", str(self._script), "stop", str(self.folder)], timeout=120, check=True)

    def kill(self) -> None:
        """SIGKILL, as a crash; containers go on."""
        daemon = psutil.Process(int((self.folder / "pid").read_text()))
        assert "lxd" in daemon.name()
        daemon.send_signal(signal.SIGKILL)
        psutil.wait_procs([daemon], timeout=20)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's envelope; waits for an operation's end."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, f"/1.0{path}", None if body is None else json.dumps(body))
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["type"] == "async":
            return self.call("GET", f"{answer['operation'].removeprefix('/1.0')}/wait")
        return answer

    def get(self, path: str) -> Any:
        return self.call("GET", path)["metadata"]

    def read(self, name: str, path: str) -> bytes:
        """A file in a container."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request("GET", f"/1.0/instances/{name}/files?path={path}")
            return connection.getresponse().read()
        finally:
            connection.close()

    def names(self) -> list[str]:
        return sorted(url.rsplit("/", 1)[-1] for url in self.get("/instances") or [])

    def make_neighbour(self, name: str, **config: str) -> None:
        """A container of somebody else, running."""
        body = {"name": name, "source": {"type": "image", "alias": IMAGE}, "config": config}
        assert self.call("POST", "/instances", body)["metadata"]["status_code"] == 200
        self.call("PUT", f"/instances/{name}/state", {"action": "start", "timeout": 20})

    def remove(self, name: str) -> None:
        self.call("PUT", f"/instances/{name}/state", {"action": "stop", "timeout": 5, "force": True})
        self.call("DELETE", f"/instances/{name}")

    def remove_all(self) -> None:
        for name in self.names():
            self.remove(name)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("lxd", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def free_ports(count: int) -> int:
    """The first of that many ports in a row that nobody listens on."""
    for first in range(21_000 + os.getpid() % 500 * 20, 60_000, count):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def until(condition: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.05)
    return answer
