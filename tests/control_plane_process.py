"""`run.py` as a real process for the tests."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
SECRETS: dict[str, Any] = {
    "JWT_SECRET": "kP3nVb8sXw2qLz9tRf6yHj4mGd7cNa5e",
    "CREDENTIALS_KEY": base64.b64encode(bytes(range(32))).decode(),
}
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


PROGRAM = (sys.executable, "-u", str(ROOT / "run.py"))


def run(
    *arguments: str, stdin: str = "", seconds: float = 60, program: Sequence[str] = PROGRAM, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*program, *arguments],
        env={**ENVIRONMENT, **environment},
        cwd=os.path.dirname(program[-1]),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any


class ControlPlaneProcess:
    """A command that serves until it is told to stop. Use it in a `with`: it is ended, and waited for, at the end."""

    def __init__(self, *arguments: str, program: Sequence[str] = PROGRAM, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*program, *arguments],
            env={**ENVIRONMENT, **environment},
            cwd=os.path.dirname(program[-1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._rest = b""

    def __enter__(self) -> ControlPlaneProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def until_line(self, pattern: str, seconds: float = 120) -> re.Match[str]:
        """The first line, from now on or earlier, that matches. A process that ends without it fails at once."""
        deadline = time.monotonic() + seconds
        looked_at = 0
        while True:
            for line in self.lines[looked_at:]:
                if found := re.search(pattern, line):
                    return found
            looked_at = len(self.lines)
            assert self._read(deadline - time.monotonic()), f"no line with {pattern!r}:\n" + "\n".join(self.lines)

    def _read(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, seconds))
        data = os.read(self.process.stdout.fileno(), 65536) if readable else b""
        *whole, self._rest = (self._rest + data).split(b"\n")
        self.lines += [line.decode() for line in whole]
        return bool(data)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 40) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def call(url: str, method: str, target: str, body: Any = None, token: str | None = None) -> Answer:
    request = urllib.request.Request(
        url + target,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            **({"Content-Type": "application/json"} if body is not None else {}),
            **({"Authorization": f"Bearer {token}"} if token else {}),
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            raw, status = response.read(), response.status
    except urllib.error.HTTPError as error:
        with error:
            raw, status = error.read(), error.code
    return Answer(status, json.loads(raw) if raw else None)


def login(url: str, credentials: dict[str, str]) -> str:
    return str(call(url, "POST", "/api/auth/login", credentials).body["accessToken"])


def until(condition: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.05)
    return answer


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(_runs(each) for each in processes)


def _runs(process: psutil.Process) -> bool:
    """A zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two looks
        return False
