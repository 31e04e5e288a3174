"""Pictures of every view, desktop and phone, by day and night: `python -m tests.browser.screenshots FOLDER`."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, FilePayload, expect

from tests.browser.visitor import DESKTOP, PATIENCE_MILLISECONDS, PHONE, Visitor, chromium
from tests.control_plane_process import ControlPlaneProcess, call, login

COMMANDS = ("join Wren", "join Tamsin", "players", "dig", "dig", "say The market opens at noon", "status", "save")


def main(folder: Path) -> int:
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        home = Path(data) / "demo"
        with ControlPlaneProcess("demo", "--port", "0", "--data-dir", str(home)) as process, chromium() as browser:
            process.until_line(r"^ready http")
            demo = json.loads((home / "demo.json").read_text())
            _live_a_little(demo)
            for size, shape in (("desktop", {"viewport": DESKTOP}), ("phone", {"viewport": PHONE, "is_mobile": True})):
                for scheme in ("light", "dark"):
                    _take(browser, demo, folder, f"{size}-{scheme}", {**shape, "color_scheme": scheme})
    return 0


def _live_a_little(demo: dict[str, Any]) -> None:
    """Something to see: a played game, two backups, and an agent that died."""
    url, token = demo["url"], login(demo["url"], demo["customer"])
    server = f"/api/game/servers/{demo['gameServers'][0]}"
    for command in COMMANDS:
        call(url, "POST", f"{server}/console/command", {"command": command}, token)
    for name in ("Before the feast", "Monday"):
        call(url, "POST", f"{server}/backups", {"name": name}, token)
    emberfall = demo["gameServers"][1]
    os.kill(next(agent["pid"] for agent in demo["agents"] if agent["id"] == emberfall), signal.SIGKILL)


def _take(browser: Browser, demo: dict[str, Any], folder: Path, suffix: str, shape: dict[str, Any]) -> None:
    visitor = Visitor(browser, demo["url"], **shape)
    page = visitor.page

    def shoot(view: str) -> None:
        page.evaluate("() => document.getAnimations().forEach((each) => each.finish())")
        page.screenshot(path=folder / f"{view}-{suffix}.png")

    page.goto("/")
    page.get_by_role("heading", name="Sign in").wait_for()
    shoot("sign-in")
    visitor.sign_in(demo["customer"])
    expect(visitor.row("Emberfall")).to_contain_text("Unreachable")
    shoot("fleet")
    visitor.open("Oakvale")
    expect(visitor.screen).to_contain_text("World saved")
    expect(page.locator(".console-status")).to_have_text("Live")
    page.evaluate("() => scrollTo(0, 0)")
    shoot("console")
    visitor.panel("Backups")
    page.get_by_role("heading", name="Monday").wait_for()
    shoot("backups")
    page.get_by_role("button", name="Restore Monday").click()
    shoot("restore")
    page.keyboard.press("Escape")
    visitor.panel("Files")
    files: list[FilePayload] = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": bytes(size)} for name, size in _FILES
    ]
    page.get_by_label("Choose files").set_input_files(files)
    expect(page.get_by_label("Uploads").get_by_text("uploaded")).to_have_count(len(_FILES))
    shoot("files")
    visitor.close()


_FILES = (("harbour.map", 5 << 20), ("rules.txt", 1200))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
