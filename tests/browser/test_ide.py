"""The IDE in a real browser through the control plane, by path and by host: the stand-in for code-server behind it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.browser.visitor import PATIENCE_MILLISECONDS
from tests.control_plane_process import until
from tests.ide_plane import IdePlane

pytestmark = pytest.mark.timeout(300)
MODES = ("path", "host")
BY_BOTH = pytest.mark.parametrize("mode", MODES)
RECONNECTED_MILLISECONDS = 60_000


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdePlane]:
    with IdePlane(tmp_path_factory.mktemp("ide")) as running:
        (running.files / "notes.md").write_text("# Notes\n")
        yield running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context()
    made.set_default_timeout(PATIENCE_MILLISECONDS)
    yield made
    made.close()


def opened(context: BrowserContext, plane: IdePlane, mode: str) -> Page:
    page = context.new_page()
    page.goto(plane.open_url(mode))
    expect(page.locator("body")).to_have_attribute("data-state", "ready")
    # The shell's socket opens beside the list of files: keys that come before it go nowhere.
    expect(page.locator("body")).to_have_attribute("data-link", "open")
    return page


def run_in_shell(page: Page, plane: IdePlane, command: str, into: str, expected: str) -> None:
    """Types the command, its output going into a file, and returns when the shell has written what is expected."""
    page.locator("#screen").click()
    page.keyboard.type(f"{command} > {into}")
    page.keyboard.press("Enter")
    written = plane.files / into
    until(lambda: written.exists() and written.read_text() == expected)


def fetched(page: Page, path: str, **options: Any) -> Any:
    """What the page's own script gets: status, headers, text."""
    return page.evaluate(
        """async ([path, options]) => {
            const response = await fetch(path, options);
            return {status: response.status, headers: [...response.headers], text: await response.text()};
        }""",
        [path, options],
    )


@BY_BOTH
def test_a_file_is_opened_edited_and_saved_to_the_disk(plane: IdePlane, context: BrowserContext, mode: str) -> None:
    page = opened(context, plane, mode)
    assert page.url.startswith(plane.address(mode))
    assert "ide_token" not in page.url
    page.get_by_role("button", name="notes.md").click()
    text = f"# Notes\n\nWritten by {mode}.\n"
    page.get_by_label("Editor").fill(text)
    page.keyboard.press("Control+s")
    expect(page.get_by_text("Saved notes.md")).to_be_visible()
    assert (plane.files / "notes.md").read_text() == text


def test_a_list_of_files_that_comes_late_takes_no_word_away(plane: IdePlane, browser: Browser) -> None:
    context = browser.new_context(service_workers="block")  # what passes through one cannot be held
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    page = opened(context, plane, "path")
    held: list[Route] = []
    page.route("**/api/files", lambda route: held.append(route))
    page.get_by_role("button", name="notes.md").click()
    page.get_by_label("Editor").fill("# Notes\n")
    page.keyboard.press("Control+s")
    saved = page.get_by_text("Saved notes.md")
    expect(saved).to_be_visible()
    until(lambda: page.evaluate("1") and len(held) == 2)  # after it was opened, and after it was saved
    held[0].continue_()
    expect(page.get_by_role("button", name="notes.md")).to_have_attribute("aria-current", "true")
    expect(saved).to_be_visible()
    page.unroute_all(behavior="ignoreErrors")
    context.close()


@BY_BOTH
def test_a_shell_answers_over_the_websocket(plane: IdePlane, context: BrowserContext, mode: str) -> None:
    page = opened(context, plane, mode)
    page.locator("#screen").click()
    page.keyboard.type(f"echo $((40 + 2)) > {mode}.txt; cat {mode}.txt")
    page.keyboard.press("Enter")
    expect(page.locator("#screen")).to_contain_text(re.compile(r"\s42\s"))
    assert (plane.files / f"{mode}.txt").read_text() == "42\n"


@BY_BOTH
def test_a_service_worker_is_clamped_to_the_ide(plane: IdePlane, context: BrowserContext, mode: str) -> None:
    page = opened(context, plane, mode)
    scope = plane.address(mode).removeprefix(plane.url) if mode == "path" else "/"
    expect(page.locator("#worker")).to_have_text(f"Worker for {scope}")
    wider = page.evaluate(
        "navigator.serviceWorker.register('worker.js', {scope: '/'}).then(() => 'registered', (error) => error.name)"
    )
    assert wider == ("SecurityError" if mode == "path" else "registered")


@BY_BOTH
def test_nothing_of_ours_reaches_the_app_and_its_own_cookies_do(
    plane: IdePlane, context: BrowserContext, mode: str
) -> None:
    page = opened(context, plane, mode)
    ours = [cookie for cookie in context.cookies() if cookie["name"] != "web-ide-seen"]
    assert len(ours) == 1
    path = "/" if mode == "host" else plane.address(mode).removeprefix(plane.url)
    assert (ours[0]["httpOnly"], ours[0]["path"]) == (True, path)
    for method in ("GET", "POST"):
        answer = fetched(page, "api/seen?x=1", method=method)
        seen = json.loads(answer["text"])
        assert (seen["method"], seen["target"]) == (method, "/api/seen?x=1")
        for secret in (ours[0]["value"], ours[0]["name"], plane.token, "ide_token"):
            assert secret not in answer["text"]
        headers = dict(seen["headers"])
        assert headers["Cookie"] == "web-ide-seen=1"
        assert headers["Host"] == headers["X-Forwarded-Host"] == plane.address(mode).split("/")[2]
    cookie = next(cookie for cookie in context.cookies() if cookie["name"] == "web-ide-seen")
    assert cookie["domain"] == plane.address(mode).split("/")[2].split(":")[0]


@BY_BOTH
def test_redirects_stay_inside_and_answers_arrive_in_parts(plane: IdePlane, context: BrowserContext, mode: str) -> None:
    page = opened(context, plane, mode)
    page.goto(plane.address(mode) + "proxy/3000")
    assert page.url == plane.address(mode) + "proxy/3000/"
    expect(page.get_by_text("port 3000")).to_be_visible()
    first, second = page.evaluate(
        """async () => {
            const reader = (await fetch("../../api/parts")).body.getReader();
            const read = async () => new TextDecoder().decode((await reader.read()).value);
            const first = await read();
            await fetch("../../api/parts", {method: "POST"});
            return [first, await read()];
        }"""
    )
    assert (first, second) == ("data: first\n\n", "data: second\n\n")


def test_an_app_cannot_open_itself_to_other_origins(plane: IdePlane, context: BrowserContext) -> None:
    opened(context, plane, "path")
    opened(context, plane, "host")
    page = context.new_page()
    page.goto(plane.url + "/healthz")
    for address in (plane.address("host") + "api/seen", plane.address("host") + "worker.js"):
        outcome = page.evaluate(
            "(url) => fetch(url, {credentials: 'include'}).then(() => 'read', (error) => error.name)", address
        )
        assert outcome == "TypeError"
    framed = page.evaluate(
        """(url) => new Promise((resolve) => {
            const socket = new WebSocket(url);
            socket.onopen = () => resolve("opened");
            socket.onclose = () => resolve("refused");
        })""",
        plane.address("host").replace("http", "ws") + "echo",
    )
    assert framed == "refused"


def test_the_same_shell_comes_back_when_the_control_plane_was_killed(plane: IdePlane, context: BrowserContext) -> None:
    pages = [opened(context, plane, mode) for mode in MODES]
    for mode, page in zip(MODES, pages, strict=True):
        # Written, so that the shell has it: keys on their way when the control plane is killed are lost with it.
        run_in_shell(page, plane, "HERE=still-$((40 + 2)); echo $HERE", f"before-{mode}.txt", "still-42\n")
    plane.restart(signal.SIGKILL)
    for mode, page in zip(MODES, pages, strict=True):
        expect(page.locator("body")).to_have_attribute("data-link", "open", timeout=RECONNECTED_MILLISECONDS)
        run_in_shell(page, plane, "echo $HERE", f"again-{mode}.txt", "still-42\n")
