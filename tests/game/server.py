"""OpenTTD's dedicated server under a reference agent, for the game checks."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.refagent_process import AgentProcess

OPENTTD = Path("/usr/games/openttd")


def openttd_agent(home: Path) -> AgentProcess:
    """Saves lie among the server's files, so that backups hold them."""
    assert OPENTTD.exists(), "OpenTTD is needed: apt-get install openttd openttd-opengfx"
    environment = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data" / "files"),
        "XDG_CONFIG_HOME": str(home / "config"),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (str(OPENTTD), "-D", f"127.0.0.1:{port}", "-g")
    options = ("--ready-pattern", "Map generated, starting game", "--stop-line", "quit")
    return AgentProcess(home / "data", command, *options, environment=environment)
