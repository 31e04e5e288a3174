"""The demo's fleet: three reference agents as real child processes on loopback, each with its own folder and secret.

An agent that is killed stays dead, so that a person can watch the state say so. All end with their parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from controlplane.errors import ConfigurationError
from controlplane.models import InstanceKind
from controlplane.provisioning.local_editor import editor_command

STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Member:
    """One agent of the demo: what it runs and how it says that it is ready."""

    name: str
    title: str
    kind: InstanceKind
    vmid: int
    command: tuple[str, ...]
    ready_pattern: str
    stop_line: str


@dataclass(frozen=True, slots=True)
class RunningAgent:
    member: Member
    port: int
    ide_port: int
    token: str
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


MEMBERS: tuple[Member, ...] = (
    Member(
        name="oakvale",
        title="Oakvale",
        kind=InstanceKind.GAME,
        vmid=101,
        command=(sys.executable, "-u", "-m", "controlplane.demo.line_game", "Oakvale"),
        ready_pattern="World ready",
        stop_line="quit",
    ),
    Member(
        name="emberfall",
        title="Emberfall",
        kind=InstanceKind.GAME,
        vmid=102,
        command=(sys.executable, "-u", "-m", "controlplane.demo.line_game", "Emberfall"),
        ready_pattern="World ready",
        stop_line="quit",
    ),
    Member(
        name="workshop",
        title="Workshop",
        kind=InstanceKind.DEV,
        vmid=201,
        command=("/bin/sh", "-c", "echo workspace ready; exec /bin/sh 2>&1"),
        ready_pattern="workspace ready",
        stop_line="exit",
    ),
)


class Fleet:
    """Starts the members in `folder` and ends them again. `source_folder` is where `controlplane` is imported from."""

    def __init__(self, folder: Path, source_folder: Path) -> None:
        self._folder = folder
        self._source_folder = source_folder
        self._processes: list[Process] = []
        self._logs: list[IO[bytes]] = []

    async def start(self, known_ports: Mapping[str, int]) -> list[RunningAgent]:
        """Start every member, on its former port where that is free."""
        return [await self._start(member, known_ports.get(member.name)) for member in MEMBERS]

    async def _start(self, member: Member, known_port: int | None) -> RunningAgent:
        home = self._folder / member.name
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        token_file = home / "token"
        if not token_file.exists():
            write_private(token_file, secrets.token_urlsafe(32))
        port = known_port if known_port is not None and _is_free(known_port) else _free_port()
        ide_port = _free_port()
        editor: tuple[str, ...] = ()
        if member.kind is InstanceKind.DEV:
            command = editor_command().replace("{ide_port}", str(ide_port))
            editor = ("--codeserver-port", str(ide_port), "--codeserver-command", command)
        log = (home / "agent.log").open("ab")
        self._logs.append(log)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "controlplane.refagent"),
            *("--address", "127.0.0.1", "--port", str(port)),
            *("--token-file", str(token_file), "--dir", str(home / "data")),
            *("--ready-pattern", member.ready_pattern, "--stop-line", member.stop_line),
            *editor,
            "--die-with-parent",
            "--",
            *member.command,
            cwd=self._source_folder,
            env={**_inherited_environment(), "PYTHONPATH": str(self._source_folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal reaches the demo alone, which then ends them in order
        )
        self._processes.append(process)
        return RunningAgent(member, port, ide_port, token_file.read_text().strip(), process.pid)

    async def stop(self) -> None:
        """Ask every agent to end, wait, and make sure."""
        alive = [process for process in self._processes if process.returncode is None]
        for process in alive:
            process.terminate()
        ended = [asyncio.create_task(process.wait()) for process in alive]
        if ended:
            await asyncio.wait(ended, timeout=STOP_SECONDS)
        for process in alive:
            if process.returncode is None:
                process.kill()
                await process.wait()
        for log in self._logs:
            log.close()


@dataclass(frozen=True, slots=True)
class Credentials:
    email: str
    password: str


@dataclass(frozen=True, slots=True)
class DemoSecrets:
    """What a second start on the same folder needs again."""

    jwt_secret: str
    credentials_key: str
    admin: Credentials
    customer: Credentials
    ports: dict[str, int]


def load_or_make_secrets(file: Path, random_key: str) -> DemoSecrets:
    """`random_key` is a fresh base64 key, used when the folder has none yet."""
    if not file.exists():
        return DemoSecrets(
            jwt_secret=secrets.token_urlsafe(48),
            credentials_key=random_key,
            admin=Credentials("admin@demo.example", secrets.token_urlsafe(12)),
            customer=Credentials("customer@demo.example", secrets.token_urlsafe(12)),
            ports={},
        )
    try:
        raw = json.loads(file.read_text())
        return DemoSecrets(
            jwt_secret=raw["jwt_secret"],
            credentials_key=raw["credentials_key"],
            admin=Credentials(**raw["admin"]),
            customer=Credentials(**raw["customer"]),
            ports=raw["ports"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("--data-dir", f"{file} cannot be read: {error!r}") from error


def save_secrets(file: Path, demo: DemoSecrets) -> None:
    write_private(file, json.dumps(asdict(demo), indent=2))


def write_private(file: Path, text: str) -> None:
    """Atomically, readable by its owner alone from the first byte on."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(file)


def description(url: str, demo: DemoSecrets, agents: list[tuple[str, RunningAgent]]) -> dict[str, Any]:
    """What `demo.json` holds. `agents` pairs each agent with its instance's id."""

    def ids(kind: InstanceKind) -> list[str]:
        return [instance_id for instance_id, agent in agents if agent.member.kind is kind]

    return {
        "url": url,
        "admin": asdict(demo.admin),
        "customer": asdict(demo.customer),
        "gameServers": ids(InstanceKind.GAME),
        "devContainers": ids(InstanceKind.DEV),
        "agents": [
            {"id": instance_id, "vmid": agent.member.vmid, "url": agent.url, "token": agent.token, "pid": agent.pid}
            for instance_id, agent in agents
        ],
    }


def _inherited_environment() -> dict[str, str]:
    """Only what a program needs to run: the demo's own secrets never reach the workload's environment."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
