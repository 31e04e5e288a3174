"""The real code-server that `make ide-check` installs, and a folder for it to open."""

from __future__ import annotations

import json
from pathlib import Path

from tests.ide_plane import ROOT_FOLDER

CODE_SERVER = ROOT_FOLDER / "tools-cache" / "code-server" / "run.sh"
LARGE_LINE = "x" * 99 + "\n"
LARGE_BYTES = 24_000_000

# No hints and no saving by itself: the test says when.
SETTINGS = {
    "files.autoSave": "off",
    "workbench.startupEditor": "none",
    "workbench.editorLargeFileConfirmation": 100,
    "terminal.integrated.enablePersistentSessions": False,  # a page of one test shows no terminal of another
    "terminal.integrated.env.linux": {"PROMPT_DIRTRIM": "1"},  # the folder's name alone in the prompt, for the pictures
    "chat.disableAIFeatures": True,
}


def code_server(port: int, folder: Path) -> list[str]:
    """The command, with a state of its own beside the folder."""
    data = folder.parent / "code-server"
    return [
        *(str(CODE_SERVER), "--auth", "none", "--bind-addr", f"127.0.0.1:{port}"),
        *("--user-data-dir", str(data), "--extensions-dir", str(data / "extensions")),
        *("--disable-telemetry", "--disable-update-check", "--disable-workspace-trust", str(folder)),
    ]


def fill(folder: Path) -> None:
    (folder / ".vscode").mkdir(parents=True)
    (folder / ".vscode" / "settings.json").write_text(json.dumps(SETTINGS))
    (folder / "notes.md").write_text("# Notes\n\nSunny.\n")
    (folder / "large.txt").write_text(LARGE_LINE * (LARGE_BYTES // len(LARGE_LINE)))
