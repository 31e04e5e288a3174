"""One machine of the local provider: a folder, and in it the agent's process. Blocking: for an executor.

    FOLDER/VMID/mark.json    the operation that made it, kind, hostname, IDE port
    FOLDER/VMID/token        the agent's secret, mode 0600
    FOLDER/VMID/process      pid, boot id and start time of the agent, written by the agent's process before it begins
    FOLDER/VMID/agent.out    says where the agent listens: the kernel picks its port, so that no two can want the same
    FOLDER/VMID/agent.log    FOLDER/VMID/data

A process is ours when pid, boot and start time (proc(5), field 22) are the ones written, and its command line names
this folder's token: a pid that was used again is not mistaken for an agent. Whoever changes a machine holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.errors import ProviderUnavailable
from controlplane.models import InstanceKind

STOP_SECONDS = 15.0
KILL_SECONDS = 5.0
SPAWN_SECONDS = 30.0
_LOOK_SECONDS = 0.01
_LISTENING = re.compile(rb"^refagent listening on http://127\.0\.0\.1:(\d+)$", re.MULTILINE)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# The process says who it is before it becomes the agent: whatever happens to the control plane in between, the file is
# written or there is no agent.
_LAUNCH = """umask 077
read -r boot < /proc/sys/kernel/random/boot_id
read -r stat < /proc/$$/stat
stat=${stat##*) }
set -f; field=0; for word in $stat; do field=$((field + 1)); [ $field = 20 ] && began=$word; done
echo "$$ $boot $began" > "$0.new" && mv "$0.new" "$0" && exec "$@"
"""


@dataclass(frozen=True, slots=True)
class MachineMark:
    """What the folder says of itself."""

    operation_id: str
    kind: InstanceKind
    hostname: str
    ide_port: int


class LocalMachine:
    """A machine's folder, whether it is there or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    @property
    def exists(self) -> bool:
        return self.folder.is_dir()

    def mark(self) -> MachineMark | None:
        """None where there is none that can be read: then the folder is not ours."""
        try:
            raw = json.loads((self.folder / "mark.json").read_text())
            return MachineMark(**{**raw, "kind": InstanceKind(raw["kind"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def make(self, mark: MachineMark, token: str) -> bool:
        """All at once, by a rename. False when somebody else's folder is there."""
        fresh = self.folder.with_name(f".new-{self.folder.name}-{secrets.token_hex(4)}")
        fresh.mkdir(mode=0o700, parents=True)
        try:
            _write_private(fresh / "mark.json", json.dumps(asdict(mark)))
            _write_private(fresh / "token", token + "\n")
            try:
                fresh.rename(self.folder)
            except OSError:  # not empty
                return False
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return True

    def remove(self) -> None:
        """First out of sight, so that a half removed folder is no machine."""
        gone = self.folder.with_name(f".gone-{self.folder.name}-{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):
            self.folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone at this machine, among the threads and processes of this host. The lock ends with its process."""
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self.folder.with_name(f".lock-{self.folder.name}")
        with file.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    # -- its process -------------------------------------------------------------------------------------------------

    def pid(self) -> int | None:
        """Of the agent, while it runs."""
        try:
            pid, boot, began = (self.folder / "process").read_text().split()
            alive = f"{pid} {boot} {began}" == f"{pid} {_BOOT_ID.read_text().strip()} {_began(int(pid))}"
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        is_ending = command == [b""]  # the kernel takes the command line away first
        return int(pid) if alive and (is_ending or os.fsencode(self.token_file) in command) else None

    def port(self) -> int | None:
        """Where its agent listens; None until it does."""
        try:
            found = _LISTENING.search((self.folder / "agent.out").read_bytes())
        except OSError:
            return None
        return None if found is None else int(found.group(1))

    def launch(self, options: tuple[str, ...], source_folder: Path, port: int) -> subprocess.Popen[bytes]:
        """Start the agent in a process group of its own, and wait until it has said who it is. Raises
        ProviderUnavailable when it has not."""
        for name in ("agent.out", "process"):
            (self.folder / name).unlink(missing_ok=True)
        agent = (
            *(sys.executable, "-m", "controlplane.refagent", "--address", "127.0.0.1", "--port", str(port)),
            *("--token-file", str(self.token_file), "--dir", str(self.folder / "data")),
            *options,
        )
        with (self.folder / "agent.out").open("ab") as out, (self.folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - the command is ours, word by word
                ["/bin/sh", "-c", _LAUNCH, str(self.folder / "process"), *agent],
                cwd=source_folder,
                env={**_inherited_environment(), "PYTHONPATH": str(source_folder)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        ends = time.monotonic() + SPAWN_SECONDS
        while self.pid() is None or self.port() is None:
            if process.poll() is not None or time.monotonic() > ends:
                raise ProviderUnavailable(
                    "The instance could not be started.",
                    operator_message=f"the agent of {self.folder} ended or did not listen: see agent.log there",
                )
            time.sleep(_LOOK_SECONDS)
        return process

    def end(self) -> None:
        """In order, and by force after a limit. The agent takes its workload along."""
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            pid = self.pid()
            if pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                if number is signal.SIGTERM:
                    os.kill(pid, number)
                else:
                    os.killpg(pid, number)
            ends = time.monotonic() + seconds
            while self.pid() is not None and time.monotonic() < ends:
                time.sleep(_LOOK_SECONDS)
        if self.pid() is not None:
            raise ProviderUnavailable(
                "The instance could not be stopped.", operator_message=f"the agent of {self.folder} does not end"
            )


def _began(pid: int) -> str:
    """The start time in ticks since boot. Raises ValueError for a process that has ended and waits for its parent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] == "Z":
        raise ValueError("a zombie")
    return fields[19]


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def _inherited_environment() -> dict[str, str]:
    """Only what a program needs to run: the control plane's own secrets never reach the workload's environment."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
