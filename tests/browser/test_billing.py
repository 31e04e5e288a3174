"""A customer buys, changes and cancels a plan at the page, and pays on the pretended Stripe's pages, in Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Demo
from tests.browser.visitor import Visitor
from tests.control_plane_process import call

pytestmark = pytest.mark.browser


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
