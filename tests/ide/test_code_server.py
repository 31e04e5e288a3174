"""A real code-server in a real browser through the control plane: what a person does in an IDE, by path and by host.

`make ide-check` installs it first. Screenshots are left in IDE_SCREENSHOTS where that names a folder.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.visitor import chromium
from tests.control_plane_process import ControlPlaneProcess, call, login, until
from tests.ide.code_server import CODE_SERVER, code_server, fill
from tests.ide.workbench import PATIENCE_MS, Workbench
from tests.ide_plane import IdePlane

pytestmark = pytest.mark.timeout(600)
BY_BOTH = pytest.mark.parametrize("mode", ["path", "host"])
SOCKET_LIMIT = 2
"""A page holds two: for its files and for its extensions. More are reconnections, where nothing has ended them."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdePlane]:
    assert CODE_SERVER.is_file(), "make ide-check installs code-server"
    with IdePlane(tmp_path_factory.mktemp("ide"), code_server) as running:
        fill(running.files)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


def take_picture(page: Page, name: str) -> None:
    folder = os.environ.get("IDE_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1000)  # for the look of it alone: the terminal draws a little later than it answers
        page.screenshot(path=Path(folder) / f"{name}.png")


@BY_BOTH
def test_a_file_is_edited_and_saved_and_the_terminal_answers(plane: IdePlane, page: Page, mode: str) -> None:
    workbench = Workbench(page)
    workbench.open(plane.open_url(mode))
    assert page.url.startswith(plane.address(mode) + "?folder=")
    workbench.open_file("notes.md")
    workbench.type_at_the_start(f"By {mode}. ")
    workbench.save()
    assert (plane.files / "notes.md").read_text().startswith(f"By {mode}. ")
    workbench.open_terminal()
    workbench.type_in_terminal(f"echo $((40 + 2)) | tee {mode}.txt")
    answer = plane.files / f"{mode}.txt"
    until(lambda: answer.exists() and answer.read_text() == "42\n")
    take_picture(page, f"workbench-by-{mode}")
    assert len(workbench.sockets) <= SOCKET_LIMIT


@BY_BOTH
def test_a_file_of_24_megabytes_is_saved_over_one_connection(plane: IdePlane, page: Page, mode: str) -> None:
    large = plane.files / "large.txt"
    before = large.stat().st_size
    workbench = Workbench(page)
    workbench.open(plane.open_url(mode))
    workbench.open_file("large.txt")
    workbench.type_at_the_start("Z")
    workbench.save()
    assert large.stat().st_size == before + 1
    with large.open() as content:
        assert content.read(2) in ("Zx", "ZZ")
    take_picture(page, f"large-file-by-{mode}")
    assert len(workbench.sockets) <= SOCKET_LIMIT


@BY_BOTH
def test_nothing_is_complained_about_beyond_what_code_server_says_without_a_proxy(
    plane: IdePlane, page: Page, mode: str
) -> None:
    failed: list[str] = []
    page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
    workbench = Workbench(page)
    workbench.open(plane.open_url(mode))
    workbench.open_file("notes.md")
    assert [url for url in failed if "/vsda/" not in url] == []  # a part that code-server does not have
    workers = page.evaluate(
        "navigator.serviceWorker.getRegistrations().then((found) => found.map((each) => each.scope))"
    )
    assert all(scope.startswith(plane.address(mode)) for scope in workers)


@BY_BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_same_terminal_comes_back_when_the_control_plane_is_restarted(
    plane: IdePlane, page: Page, mode: str, number: signal.Signals
) -> None:
    workbench = Workbench(page)
    workbench.open(plane.open_url(mode))
    workbench.open_terminal()
    name = f"again-{mode}-{number.name}.txt"
    workbench.type_in_terminal(f"HERE=still-$((40 + 2)); touch before-{name}")
    until((plane.files / f"before-{name}").exists)
    known = len(workbench.sockets)
    plane.restart(number)
    until(lambda: page.evaluate("1") and len(workbench.sockets) > known, seconds=60)
    assert all("reconnection=true" in socket.url for socket in workbench.sockets[known:])
    written = plane.files / name

    def is_written() -> bool:
        # What is typed while the page still reconnects is lost or arrives later; the same words may be said again.
        workbench.type_in_terminal(f"echo $HERE > {name}")
        page.wait_for_timeout(500)
        return written.exists() and written.read_text() == "still-42\n"

    until(is_written, seconds=60)
    take_picture(page, f"reconnected-by-{mode}-{number.name}")


def test_the_demo_offers_it_from_the_dashboard(tmp_path: Path, browser: Browser) -> None:
    folder = tmp_path / "demo"
    with ControlPlaneProcess("demo", "--port", "0", "--data-dir", str(folder)) as demo:
        demo.until_line(r"^ready http")
        description = json.loads((folder / "demo.json").read_text())
        url, instance = description["url"], description["devContainers"][0]
        token = login(url, description["customer"])
        status = f"/api/dev/{instance}/codeserver/status"
        until(lambda: call(url, "GET", status, None, token).body["state"] == "running", seconds=60)
        opened = call(url, "POST", f"/api/dev/{instance}/ide-token", {"mode": "host"}, token).body["url"]
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        workbench = Workbench(page)
        until(lambda: page.goto(opened, wait_until="commit") is not None)
        expect(page.locator(".monaco-workbench")).to_be_visible(timeout=PATIENCE_MS)
        vmid = next(agent["vmid"] for agent in description["agents"] if agent["id"] == instance)
        assert page.url.endswith(f"?folder={folder}/machines/{vmid}/data/files")
        take_picture(page, "demo")
        assert len(workbench.sockets) <= SOCKET_LIMIT
        context.close()
