"""What a local dev container offers on its IDE port: a real code-server where there is one, else the small web IDE.

Looked for once, when the program starts: on the PATH, and in the checkout's `tools-cache/code-server`.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

SOURCE_FOLDER = Path(__file__).resolve().parents[2]
INSTALLED = Path("tools-cache") / "code-server" / "run.sh"
_OPTIONS = (
    *("--auth", "none", "--bind-addr", "127.0.0.1:{ide_port}"),  # reachable from the control plane alone
    *("--user-data-dir", "../code-server"),  # beside the files: in the user's home all containers would share it
    *("--disable-telemetry", "--disable-update-check", "--disable-workspace-trust", "--ignore-last-opened", "."),
)


def editor_command(source_folder: Path = SOURCE_FOLDER, which: Callable[[str], str | None] = shutil.which) -> str:
    """A shell's words, with `{ide_port}` for the port; it is run in the workspace's folder."""
    installed = source_folder / INSTALLED
    program = str(installed) if installed.is_file() else which("code-server")
    if program is not None:
        return shlex.join((program, *_OPTIONS))
    return shlex.join((sys.executable, "-m", "controlplane.demo.web_ide", "--port", "{ide_port}"))
