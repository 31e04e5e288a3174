"""A person at the page in a real browser: what they do, and what the browser had to complain about meanwhile."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, ViewportSize, expect, sync_playwright
from playwright.sync_api import Error as DriverError

from tests.control_plane_process import until

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
PATIENCE_MILLISECONDS = 40_000
TAB_LIMIT = 60
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# A JWT is told by its dots: random ids and reset tokens may hold the letters of its beginning.
_SECRET_IN_ADDRESS = re.compile(r"[?#&;].*(?i:token|ticket|secret|password|bearer)|eyJ[\w-]+\.")
_KEEP_WHAT_IS_SAID = """addEventListener("DOMContentLoaded", () => {
  const said = (globalThis.said = []);
  const keep = (changes) => {
    for (const { addedNodes } of changes) said.push(...[...addedNodes].map((node) => node.textContent));
  };
  for (const id of ["notices", "announcer"]) {
    const place = document.getElementById(id);
    if (place) new MutationObserver(keep).observe(place, { childList: true });
  }
});"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The one that CHROMIUM names, or the system's. Playwright's loop runs in this thread until the end."""
    binary = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    assert binary is not None, "the browser tests need Chromium: apt-get install chromium, or name one by CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """One browser context: nothing is shared with other visitors.

    `complaints` are console errors and warnings (violations of the policy among them) and uncaught exceptions, but for
    those that match one of `expected`.
    """

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.url = url
        self.context = browser.new_context(**{"viewport": DESKTOP, "base_url": url, **context})
        self.context.set_default_timeout(PATIENCE_MILLISECONDS)
        self.page: Page = self.context.new_page()
        self.page.add_init_script(_KEEP_WHAT_IS_SAID)
        self.expected: list[str] = []
        self.addresses: list[str] = []
        self._complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self._complaints.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.on("websocket", lambda socket: self.addresses.append(socket.url))
        self.page.on("framenavigated", lambda frame: self.addresses.append(frame.url))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self._complaints.append(f"{message.type}: {message.text}")

    @property
    def complaints(self) -> list[str]:
        return [each for each in self._complaints if not any(re.search(known, each) for known in self.expected)]

    @property
    def addresses_with_secrets(self) -> list[str]:
        return [address for address in self.addresses if _SECRET_IN_ADDRESS.search(address)]

    def storage(self) -> dict[str, Any]:
        """What the browser keeps for this page while it is in use."""
        kept: dict[str, Any] = self.page.evaluate(
            "() => ({local: {...localStorage}, session: {...sessionStorage}, cookie: document.cookie})"
        )
        return kept

    # -- what a person does ------------------------------------------------------------------------------------------

    def sign_in(self, credentials: dict[str, str]) -> None:
        self.page.goto("/")
        self.sign_in_here(credentials)

    def sign_in_here(self, credentials: dict[str, str]) -> None:
        self.page.get_by_label("E-mail address").fill(credentials["email"])
        self.page.get_by_label("Password").fill(credentials["password"])
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="Fleet").wait_for()

    def come_back(self, refresh_token: str) -> None:
        """As after a reload: the page finds the session that a page before it left."""
        self.page.goto("/")
        self.page.evaluate("token => sessionStorage.setItem('controlplane.refresh', token)", refresh_token)
        self.page.reload()
        self.page.get_by_role("heading", name="Fleet").wait_for()

    def leave(self) -> str | None:
        """The refresh token that the page keeps for the next one while it goes away, if somebody is signed in."""
        token: str | None = self.page.evaluate(
            """() => {
              dispatchEvent(new PageTransitionEvent("pagehide"));
              const token = sessionStorage.getItem("controlplane.refresh");
              sessionStorage.removeItem("controlplane.refresh");
              return token;
            }"""
        )
        return token

    def open(self, name: str, panel: str = "Console") -> None:
        """From the fleet to a panel of the instance of that name."""
        self.page.get_by_role("navigation", name="Main").get_by_role("link", name="Fleet").click()
        self.row(name).click()
        self.page.get_by_role("heading", name=name, exact=True).wait_for()
        self.panel(panel)

    def panel(self, name: str) -> None:
        self.page.get_by_role("navigation", name="Parts of this instance").get_by_role("link", name=name).click()

    def row(self, name: str) -> Locator:
        return self.page.get_by_role("listitem").get_by_role("link", name=name)

    @property
    def console_status(self) -> Locator:
        return self.page.locator(".console-status")

    def say(self, command: str) -> None:
        """Once the console is live: what is typed before is refused."""
        expect(self.console_status).to_have_text("Live")
        self.say_at_once(command)

    def say_at_once(self, command: str) -> None:
        line = self.page.get_by_label("Command", exact=True)
        line.fill(command)
        line.press("Enter")

    @property
    def screen(self) -> Locator:
        """The lines of the console, as a screen reader finds them."""
        return self.page.locator(".xterm-accessibility-tree")

    def until_told(self, sentence: str) -> None:
        """From now on or earlier on this page: what it says goes away by itself."""
        until(lambda: any(sentence in each for each in self.page.evaluate("said")))

    @property
    def state(self) -> Locator:
        return self.page.locator(".state-line")

    def tab_to(self, target: Locator, key: str = "Tab") -> None:
        """By the keyboard alone, and the focus can be seen."""
        for _ in range(TAB_LIMIT):
            self.page.keyboard.press(key)
            if target.evaluate("element => element === document.activeElement"):
                assert target.evaluate("element => element.matches(':focus-visible')"), "the focus cannot be seen"
                return
        raise AssertionError(f"{target} cannot be reached by {key}")

    def close(self) -> None:
        """Handlers of routes may still wait for their answer: what they meet at a closing page is nobody's error."""
        try:
            self.page.unroute_all(behavior="ignoreErrors")
            self.context.unroute_all(behavior="ignoreErrors")
            self.context.close()
        except DriverError as error:
            raise AssertionError("the browser ended by itself") from error
