"""How long a real code-server takes until its workbench is ready, cold, directly and through the control plane."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser

from tests.browser.visitor import chromium
from tests.ide.code_server import CODE_SERVER, code_server, fill
from tests.ide.workbench import Workbench
from tests.ide_plane import IdePlane


def measure(rounds: int) -> None:
    """Prints a table. In turns, each time in a fresh browser context: nothing is cached."""
    if not CODE_SERVER.is_file():
        raise SystemExit("code-server is not installed: make ide-check does it")
    with tempfile.TemporaryDirectory() as name, IdePlane(Path(name) / "plane", code_server) as plane:
        fill(plane.files)
        ways: dict[str, Callable[[], str]] = {
            "direct": lambda: f"http://127.0.0.1:{plane.ide_port}/",
            "by path": lambda: plane.open_url("path"),
            "by host": lambda: plane.open_url("host"),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        with chromium() as browser:
            _load(browser, ways["direct"]())  # what code-server does once
            for _ in range(rounds):
                for way, url in ways.items():
                    seconds[way].append(_load(browser, url()))
    print(f"workbench ready, cold, median of {rounds}")
    direct = statistics.median(seconds["direct"])
    for way, each in seconds.items():
        median = statistics.median(each)
        print(f"{way:<10}{median:6.2f} s{median / direct:6.2f}    fastest {min(each):.2f} s")


def _load(browser: Browser, url: str) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        began = time.perf_counter()
        Workbench(context.new_page()).open(url)
        return time.perf_counter() - began
    finally:
        context.close()
