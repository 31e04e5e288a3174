"""OpenTTD's dedicated server under a reference agent, for the game checks."""

from __future__ import annotations

from pathlib import Path

from tests.free_ports import free_port
from tests.refagent_process import AgentProcess

OPENTTD = Path("/usr/games/openttd")
HELD_BACK = "held-back"


def openttd_agent(home: Path) -> AgentProcess:
    """Saves lie among the server's files, so that backups hold them.

    The server does not begin while there is a file HELD_BACK in `home`: its start takes less time than a look at it.
    """
    assert OPENTTD.exists(), "OpenTTD is needed: apt-get install openttd openttd-opengfx"
    environment = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data" / "files"),
        "XDG_CONFIG_HOME": str(home / "config"),
    }
    begin = ("/bin/sh", "-c", 'while test -e "$0"; do sleep 0.1; done; exec "$@"', str(home / HELD_BACK))
    command = (*begin, str(OPENTTD), "-D", f"127.0.0.1:{free_port()}", "-g")
    options = ("--ready-pattern", "Map generated, starting game", "--stop-line", "quit")
    return AgentProcess(home / "data", command, *options, environment=environment)
