"""What runs in a machine of the local provider, by kind: a small game, or a workspace. Pure.

A profile is the agent's command line in words of this table; `{name}` and `{ide_port}` stand for the machine's own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.models import InstanceKind


@dataclass(frozen=True, slots=True)
class WorkloadProfile:
    """`codeserver` is what the agent starts on the machine's IDE port; None where nothing is offered there."""

    command: tuple[str, ...]
    ready_pattern: str
    stop_line: str
    codeserver: str | None = None

    def agent_options(self, name: str, ide_port: int) -> tuple[str, ...]:
        """For `python -m controlplane.refagent`, the workload's command last."""
        words = {"{name}": name, "{ide_port}": str(ide_port)}
        editor = () if self.codeserver is None else ("--codeserver-command", _filled(self.codeserver, words))
        return (
            *("--ready-pattern", self.ready_pattern, "--stop-line", self.stop_line),
            *("--codeserver-port", str(ide_port), *editor, "--"),
            *(_filled(word, words) for word in self.command),
        )


def _filled(word: str, words: Mapping[str, str]) -> str:
    for placeholder, value in words.items():
        word = word.replace(placeholder, value)
    return word


PROFILES: Mapping[InstanceKind, WorkloadProfile] = {
    InstanceKind.GAME: WorkloadProfile(
        command=(sys.executable, "-u", "-m", "controlplane.demo.line_game", "{name}"),
        ready_pattern="World ready",
        stop_line="quit",
    ),
    InstanceKind.DEV: WorkloadProfile(
        command=("/bin/sh", "-c", "echo workspace ready; exec /bin/sh 2>&1"),
        ready_pattern="workspace ready",
        stop_line="exit",
    ),
}
