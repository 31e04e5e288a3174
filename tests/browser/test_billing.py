"""A customer buys, changes and cancels a plan at the page, and pays on the pretended Stripe's pages, in Chromium."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Demo
from tests.browser.visitor import Visitor
from tests.control_plane_process import call

pytestmark = pytest.mark.timeout(300)


def at_billing(visitor: Visitor) -> None:
    visitor.page.get_by_role("link", name="Billing").click()
    expect(visitor.page.get_by_role("heading", name="Billing")).to_be_visible()


def test_a_plan_is_bought_upgraded_cancelled_and_kept(customer: Visitor) -> None:
    page = customer.page
    present = page.get_by_role("region", name="Your plan")
    at_billing(customer)
    expect(present).to_contain_text("No plan")
    page.get_by_role("button", name="Choose Builder").click()
    page.get_by_role("button", name="Subscribe").click()  # Stripe's page
    expect(page.get_by_role("heading", name="Billing")).to_be_visible()
    expect(present).to_contain_text("Builder")
    expect(present).to_contain_text("Active")

    page.get_by_role("button", name="Choose Studio").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("You pay")
    dialog.get_by_role("button", name=re.compile("^Pay")).click()
    expect(present).to_contain_text("Studio")

    page.get_by_role("button", name="Choose Starter").click()
    dialog.get_by_role("button", name="Change to Starter").click()
    expect(page.get_by_text(re.compile("where the plan allows 1"))).to_be_visible()  # there are two game servers
    customer.expected.append(r"status of 409")

    page.get_by_role("button", name="Cancel plan").click()
    dialog.get_by_role("button", name="Cancel plan").click()
    expect(present).to_contain_text("Ends on")
    page.get_by_role("button", name="Take it back").click()
    expect(present).not_to_contain_text("Ends on")

    page.get_by_role("button", name="Show invoices").click()
    expect(page.get_by_role("link", name=re.compile("^Invoice"))).to_have_count(2)


ACTIVE = {
    "exempt": False,
    "status": "active",
    "access": "full",
    "payUrl": None,
    "suspensionAt": None,
    "trialEnd": None,
    "plan": {"id": "builder", "name": "Builder"},
    "interval": "month",
    "price": None,
    "pendingChange": None,
    "periodEnd": "2030-01-11T00:00:00.000Z",
    "cancelAtPeriodEnd": False,
}


def tell_of_billing_again_and_again(page: Page) -> None:
    """The stream of events says so and ends, and says so again when the page has come back to it."""
    said = "event: billing\ndata: {}\n\n"
    page.route("**/api/events", lambda route: route.fulfill(body=said, content_type="text/event-stream"))


def drawn_again(page: Page, changes: Iterator[dict[str, Any]]) -> None:
    """What is read next differs, so that everything is drawn anew."""
    changed = {**ACTIVE, **next(changes)}
    with page.expect_response("**/api/billing/plans"):
        page.route("**/api/billing", lambda route: route.fulfill(json=changed))
    expect(page.get_by_text(str(changed["plan"]["name"]), exact=True)).to_be_visible()


@pytest.fixture
def changes() -> Iterator[dict[str, Any]]:
    """Each another one."""
    return ({"plan": {"id": "builder", "name": f"Builder {number}"}} for number in itertools.count())


def test_invoices_stay_when_something_changes(visitor: Visitor, demo: Demo, changes: Iterator[dict[str, Any]]) -> None:
    page = visitor.page
    listed = [{"createdAt": "2029-12-11T00:00:00.000Z", "amountDue": 900, "currency": "eur", "status": "paid"}]
    invoices = [{**each, "url": "https://pay.example/in_1", "number": "1"} for each in listed]
    page.route("**/api/billing/invoices?*", lambda route: route.fulfill(json={"items": invoices}))
    tell_of_billing_again_and_again(page)
    visitor.sign_in(demo.customer)
    at_billing(visitor)
    drawn_again(page, changes)
    page.get_by_role("button", name="Show invoices").click()
    expect(page.get_by_role("link", name="Invoice 1")).to_be_visible()
    drawn_again(page, changes)
    expect(page.get_by_role("link", name="Invoice 1")).to_be_visible()


def test_a_change_while_something_is_asked_takes_no_button_away(
    visitor: Visitor, demo: Demo, changes: Iterator[dict[str, Any]]
) -> None:
    page = visitor.page
    tell_of_billing_again_and_again(page)
    visitor.sign_in(demo.customer)
    at_billing(visitor)
    drawn_again(page, changes)
    cancel = page.get_by_role("button", name="Cancel plan")
    cancel.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    drawn_again(page, changes)
    page.route("**/api/events", lambda route: None)  # nothing more is said, which would draw everything once more
    dialog.get_by_role("button", name="Cancel", exact=True).click()
    expect(dialog).to_have_count(0)
    expect(cancel).to_be_enabled()


def test_administrators_are_told_that_they_are_exempt(visitor: Visitor, demo: Demo) -> None:
    assert call(demo.url, "GET", "/api/billing", None, demo.token("admin")).body["exempt"]
    visitor.sign_in(demo.description["admin"])
    at_billing(visitor)
    expect(visitor.page.get_by_text("Administrators are not billed")).to_be_visible()


def test_an_open_payment_stands_above_the_fleet(visitor: Visitor, demo: Demo) -> None:
    """The answer is changed on its way to the page: the pretended Stripe of the demo lives in real time."""
    page = visitor.page
    state = call(demo.url, "GET", "/api/billing", None, demo.token("customer")).body
    unpaid = {"status": "past_due", "access": "grace", "payUrl": "https://pay.example/in_1"}
    changed = {**state, **unpaid, "suspensionAt": "2030-01-11T00:00:00.000Z"}
    page.route("**/api/billing", lambda route: route.fulfill(json=changed))
    visitor.sign_in(demo.customer)
    banner = page.get_by_role("alert").filter(has_text="A payment did not go through")
    expect(banner).to_contain_text("Your servers are stopped on")
    expect(banner.get_by_role("link", name="Pay now")).to_have_attribute("href", "https://pay.example/in_1")
