"""New instances at the page, in Chromium: asked for, watched while they are made, used, deleted again."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Demo
from tests.browser.visitor import Visitor
from tests.control_plane_process import call, until

pytestmark = pytest.mark.timeout(300)


def test_a_new_server_is_watched_while_it_is_made_then_used_and_deleted(customer: Visitor, demo: Demo) -> None:
    page = customer.page
    page.get_by_role("button", name="New game server").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_be_focused()
    page.keyboard.type("Thornwick")
    dialog.get_by_label("Size").select_option("small")
    page.keyboard.press("Tab")
    making = page.get_by_role("list", name="Under way").get_by_role("listitem")
    with demo.no_machine_is_made():
        dialog.get_by_role("button", name="Create it").click()
        expect(making).to_contain_text("Thornwick")
        expect(making.get_by_role("progressbar", name="Progress of Thornwick")).to_be_visible()
        expect(making).to_contain_text("Making the machine")
        expect(customer.row("Thornwick")).to_have_count(0)  # nobody sees it before it is ready
    customer.until_told("Thornwick is ready.")
    expect(customer.row("Thornwick")).to_contain_text("Ready")
    expect(making).to_have_count(0)

    customer.open("Thornwick")
    customer.say("say hello")
    expect(customer.screen).to_contain_text("hello")
    page.get_by_role("button", name="Delete", exact=True).click()
    gone = dialog.get_by_role("button", name="Delete it for good")
    expect(gone).to_be_disabled()
    dialog.get_by_label("Type").fill("Thornwic")
    expect(gone).to_be_disabled()
    dialog.get_by_label("Type").fill("Thornwick")
    gone.click()
    expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
    expect(customer.row("Thornwick")).to_have_count(0)
    until(lambda: len([each for each in (demo.folder / "machines").iterdir() if each.name.isdigit()]) == 3)


def test_what_is_being_made_can_be_called_off(customer: Visitor, demo: Demo) -> None:
    page = customer.page
    page.get_by_role("button", name="New game server").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Marrowdale")
    making = page.get_by_role("list", name="Under way").get_by_role("listitem")
    with demo.no_machine_is_made():
        page.get_by_role("dialog").get_by_role("button", name="Create it").click()
        with page.expect_response("**/cancel"):
            making.get_by_role("button", name="Cancel").click()
    customer.until_told("Marrowdale was canceled.")
    expect(making).to_have_count(0)
    operations = call(demo.url, "GET", "/api/operations", None, demo.token()).body["items"]
    assert {each["name"]: each["state"] for each in operations}["Marrowdale"] == "canceled"


def test_a_refusal_is_said_in_words_and_nothing_is_made(customer: Visitor, demo: Demo) -> None:
    page = customer.page
    customer.expected.append(r"status of 4\d\d")  # the browser's own note of the answer
    page.route(
        "**/api/dev",
        lambda route: (
            route.fulfill(
                status=409,
                json={"error": "You may have 5 of these.", "code": "quota_reached", "details": None, "requestId": "r"},
            )
            if route.request.method == "POST"
            else route.continue_()
        ),
    )
    page.get_by_role("button", name="New dev container").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Atelier")
    page.get_by_role("dialog").get_by_role("button", name="Create it").click()
    expect(page.get_by_role("alert")).to_contain_text("You may have 5 of these.")


def test_what_has_ended_is_not_under_way_again_by_a_list_that_was_asked_for_before(visitor: Visitor) -> None:
    visitor.page.goto("/")
    shown: list[str] = visitor.page.evaluate(
        """async () => {
          const { EventBus } = await import("/static/js/event-bus.js");
          const { Operations } = await import("/static/js/operations.js");
          let answer;
          const api = { get: () => new Promise((resolve) => { answer = resolve; }) };
          const events = new EventBus();
          const operations = new Operations({ api, events }, () => {});
          const ended = { id: "op_1", state: "succeeded", finished: true, updatedAt: "2026-01-01T00:00:02.000Z" };
          events.tell("operation", ended);
          const before = { state: "readyCheck", finished: false, updatedAt: "2026-01-01T00:00:01.000Z" };
          answer({ items: [{ ...ended, ...before }, { ...before, id: "op_2" }] });
          await new Promise((resolve) => setTimeout(resolve));
          return operations.all().map(({ id }) => id);
        }"""
    )
    assert shown == ["op_2"]
