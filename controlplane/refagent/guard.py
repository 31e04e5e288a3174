"""Ends whole process groups when the agent is killed: a small process that watches a pipe.

PR_SET_PDEATHSIG reaches only the process that the agent started itself; what that one started (a shell script's game,
say) would live on. The guard is told each group, `+ID` and `-ID` a line, on its standard input, which ends with the
agent however the agent ends. What has left its group (setsid(2)) is out of reach.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys

END_SECONDS = 5.0

_LOG = logging.getLogger("refagent")


class GroupGuard:
    """The agent's side. Starting it takes a fork and exec: do so before serving."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "controlplane.refagent.guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def end(self) -> None:
        """Blocking, but short: the guard ends when its input does."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin is None:
            return
        try:
            self._process.stdin.write(line.encode())
        except OSError as error:
            _LOG.warning("the guard of the process groups is gone: %s", error.strerror)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the agent's end ends it
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        group = int(line[1:])
        if line.startswith(b"+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
