"""The IDE's panel of a dev container: what it says of code-server, and the tab that it opens.

What the agent says is made up here, so that each state is seen; the IDE itself is in tests/api and `make ide-check`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.visitor import Visitor

pytestmark = pytest.mark.timeout(300)


class CodeServer:
    """Answers for the agent. `posts` are the actions that were asked for."""

    def __init__(self, visitor: Visitor, status: dict[str, Any] | None) -> None:
        self.status = status
        self.posts: list[str] = []
        self.tokens = 0
        visitor.context.route("**/codeserver/*", self._answer)
        visitor.context.route("**/ide-token", self._issue)

    def _answer(self, route: Route) -> None:
        action = route.request.url.rpartition("/")[2]
        if route.request.method == "POST":
            self.posts.append(action)
            self.status = {"state": "stopped" if action == "stop" else "running", "ready": action != "stop"}
            route.fulfill(status=202, json={"state": "starting"})
        elif self.status is None:
            route.fulfill(status=404, json={"error": "It does not tell.", "code": "not_found"})
        else:
            route.fulfill(json=self.status)

    def _issue(self, route: Route) -> None:
        self.tokens += 1
        route.fulfill(
            body=json.dumps({"token": "t", "expiresAt": "x", "url": "/docs"}), content_type="application/json"
        )


def opened(visitor: Visitor, press: Callable[[], None]) -> None:
    """The tab that `press` opens leads to the address that was given, and knows nothing of this one."""
    with visitor.context.expect_page() as tab:
        press()
    tab.value.wait_for_load_state()
    assert tab.value.url == f"{visitor.url}/docs"
    assert tab.value.evaluate("window.opener") is None
    assert tab.value.evaluate("document.referrer") == ""
    tab.value.close()


def test_a_running_ide_opens_in_a_tab_of_its_own(customer: Visitor) -> None:
    codeserver = CodeServer(customer, {"state": "running", "ready": True})
    customer.open("Workshop", "IDE")
    page = customer.page
    expect(page.get_by_text("code-server is running.")).to_be_visible()
    expect(page.get_by_role("button", name="Start code-server", exact=True)).to_be_disabled()
    opened(customer, page.get_by_role("button", name="Open IDE").click)
    assert (codeserver.tokens, codeserver.posts) == (1, [])


def test_opening_a_stopped_ide_offers_to_start_it(customer: Visitor) -> None:
    codeserver = CodeServer(customer, {"state": "stopped", "ready": False, "error": None})
    customer.open("Workshop", "IDE")
    page = customer.page
    expect(page.get_by_text("code-server is stopped.")).to_be_visible()
    expect(page.get_by_role("button", name="Stop code-server")).to_be_disabled()
    page.get_by_role("button", name="Open IDE").click()
    dialog = page.get_by_role("dialog", name="Start code-server?")
    dialog.get_by_role("button", name="Cancel").click()
    assert (codeserver.tokens, codeserver.posts) == (0, [])
    page.get_by_role("button", name="Open IDE").click()
    opened(customer, dialog.get_by_role("button", name="Start and open").click)
    assert (codeserver.tokens, codeserver.posts) == (1, ["start"])


def test_code_server_is_stopped_after_a_question(customer: Visitor) -> None:
    codeserver = CodeServer(customer, {"state": "running", "ready": True})
    customer.open("Workshop", "IDE")
    page = customer.page
    page.get_by_role("button", name="Stop code-server").click()
    page.get_by_role("dialog", name="Stop code-server?").get_by_role("button", name="Stop code-server").click()
    expect(page.get_by_text("code-server is stopped.")).to_be_visible()
    assert codeserver.posts == ["stop"]


def test_an_agent_that_does_not_tell_leaves_every_control(customer: Visitor) -> None:
    customer.expected.append("404")
    CodeServer(customer, None)
    customer.open("Workshop", "IDE")
    page = customer.page
    expect(page.get_by_text("does not tell whether code-server runs")).to_be_visible()
    for name in ("Open IDE", "Start code-server", "Restart code-server", "Stop code-server"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_enabled()


def test_a_game_server_has_no_ide(customer: Visitor) -> None:
    customer.open("Oakvale")
    expect(customer.page.get_by_role("link", name="IDE")).to_have_count(0)
