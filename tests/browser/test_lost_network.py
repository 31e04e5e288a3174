"""What the page says while the network is away, and what it catches up with afterwards. In Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import FilePayload, Locator, expect

from tests.browser.conftest import Demo
from tests.browser.visitor import DESKTOP, PHONE, Visitor
from tests.control_plane_process import call, until

pytestmark = pytest.mark.timeout(300)
BROWSERS_NOTE = r"ERR_INTERNET_DISCONNECTED"


def link(visitor: Visitor) -> Locator:
    return visitor.page.locator(".link-state")


def note(visitor: Visitor) -> Locator:
    return visitor.page.get_by_text("Not connected to the control plane.")


def never_try_again_by_itself(visitor: Visitor) -> None:
    """Chance lengthens every pause to a day: what comes back did so because the browser told of the network."""
    visitor.page.evaluate("() => { Math.random = () => 2e5; }")


TRY_IN_VAIN = """() => new Promise((resolve) => {
  const Socket = WebSocket;
  globalThis.WebSocket = class extends Socket {
    constructor(url) {
      super(url);
      globalThis.WebSocket = Socket;
      this.addEventListener("close", () => setTimeout(resolve));
    }
  };
  dispatchEvent(new Event("online"));
})"""


def test_without_a_network_what_is_shown_is_said_to_be_old_and_what_is_tried_to_fail(
    customer: Visitor, demo: Demo
) -> None:
    customer.expected.append(BROWSERS_NOTE)
    page = customer.page
    customer.open("Workshop")
    expect(customer.state).to_contain_text("Ready")
    expect(page.locator(".console-status")).to_have_text("Live")
    never_try_again_by_itself(customer)
    customer.context.set_offline(True)
    expect(link(customer)).to_have_text("Not live")
    expect(note(customer)).to_be_visible()
    expect(page.get_by_text(re.compile("What is shown may have changed since "))).to_be_visible()
    expect(page.locator(".console-status")).to_contain_text("The connection to the console was lost. Trying again in")
    page.evaluate(TRY_IN_VAIN)
    expect(page.locator(".console-status")).to_contain_text("Trying again in")
    lost = "The connection to the console was lost."
    expect(customer.screen).to_contain_text(lost)
    assert (customer.screen.text_content() or "").count(lost) == 1
    customer.say_at_once("echo is anybody there")
    expect(page.locator(".command-problem")).to_have_text("Not sent: this page is not connected to the console.")
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    failed = page.get_by_role("alert").filter(has_text="Workshop: stop failed. The control plane cannot be reached.")
    expect(failed).to_contain_text("Check your connection and try again.")
    expect(stop).to_be_enabled()

    customer.panel("Files")
    file: FilePayload = {"name": "x", "mimeType": "text/plain", "buffer": b"x"}
    page.get_by_label("Choose files").set_input_files([file])
    item = page.get_by_label("Uploads").get_by_role("listitem")
    expect(item).to_contain_text("Not uploaded")
    expect(item).to_contain_text("Check your connection and try again.")
    page.set_viewport_size(PHONE)
    expect(page.get_by_role("button", name="Sign out")).to_be_in_viewport(ratio=1)
    page.set_viewport_size(DESKTOP)
    again = item.get_by_role("button", name="Try again to upload x")
    again.click()
    expect(item).to_contain_text("Not uploaded")
    expect(item.get_by_text("Check your connection and try again.")).to_have_count(1)
    customer.context.set_offline(False)
    expect(link(customer)).to_have_text("Live")
    expect(note(customer)).to_be_hidden()
    again.click()
    expect(item).to_contain_text("· uploaded")
    expect(item).not_to_contain_text("Check your connection")
    expect(again).to_be_hidden()
    until(lambda: [path.read_bytes() for path in demo.files("Workshop", "x")] == [b"x"])


def test_a_network_that_returns_brings_at_once_what_changed_meanwhile(customer: Visitor, demo: Demo) -> None:
    customer.expected.append(BROWSERS_NOTE)
    page = customer.page
    workshop = demo.path("Workshop")
    customer.open("Workshop")
    customer.say("echo before the cut")
    expect(customer.screen).to_contain_text("before the cut")
    never_try_again_by_itself(customer)
    customer.context.set_offline(True)
    expect(note(customer)).to_be_visible()
    expect(page.locator(".console-status")).to_contain_text("Trying again in")
    meanwhile = {"command": "echo mean$((1 + 1))while"}
    assert call(demo.url, "POST", f"{workshop}/console/command", meanwhile, demo.token()).status < 300
    assert call(demo.url, "POST", f"{demo.path('Oakvale')}/stop", None, demo.token()).status == 202
    until(lambda: demo.instance("Oakvale")["state"]["process"] == "stopped")
    expect(customer.screen).not_to_contain_text("mean2while")

    customer.context.set_offline(False)
    expect(link(customer)).to_have_text("Live")
    expect(page.locator(".console-status")).to_have_text("Live")
    expect(customer.screen).to_contain_text("mean2while")
    assert customer.screen.inner_text().count("mean2while") == 1, "what was shown already is not shown again"
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Fleet").click()
    expect(customer.row("Oakvale")).to_contain_text("Stopped")
    assert call(demo.url, "POST", f"{demo.path('Oakvale')}/start", None, demo.token()).status == 202
    expect(customer.row("Oakvale")).to_contain_text("Ready")


def test_a_network_that_falls_silent_unnoticed_by_the_browser_is_said_of_the_console_too(customer: Visitor) -> None:
    page = customer.page
    page.clock.install()
    page.reload()  # timers that run already are not this clock's
    customer.open("Workshop")
    expect(page.locator(".console-status")).to_have_text("Live")
    customer.say("echo before the silence")
    expect(customer.screen).to_contain_text("before the silence")
    expect(link(customer)).to_have_text("Live")
    page.clock.fast_forward(46_000)  # as long as no sign of life came
    expect(customer.screen).to_contain_text("The connection to the console was lost.")
    expect(link(customer)).to_have_text("Live")
    expect(page.locator(".console-status")).to_have_text("Live")
    customer.say("echo after the silence")
    expect(customer.screen).to_contain_text("after the silence")
    assert customer.screen.inner_text().count("before the silence") == 2, "typed and printed, once each"
