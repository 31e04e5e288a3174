"""From "Forgot the password?" to signing in with a new one, in Chromium, by an account of its own at the demo."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import Demo
from tests.browser.visitor import Visitor
from tests.control_plane_process import call, until

pytestmark = pytest.mark.timeout(300)
INVALID = "This link does not work: it was used, is too old, or is not whole."
ON_ITS_WAY = "If there is such an account, the mail is on its way."


@pytest.fixture
def account(demo: Demo) -> dict[str, str]:
    made = {"email": f"wren-{secrets.token_hex(4)}@example.org", "password": secrets.token_urlsafe(12)}
    assert call(demo.url, "POST", "/api/auth/register", made).status == 202
    until(lambda: demo.mails(made["email"]))  # the welcome
    return made


def link_of(mail: str) -> str:
    found = re.search(r"\S+/#reset=\S+", mail)
    assert found, mail
    return found[0]


def ask_for_a_link(page: Page, email: str) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_text(ON_ITS_WAY)).to_be_focused()


def set_password(page: Page, password: str) -> None:
    page.get_by_label("New password").fill(password)
    page.get_by_role("button", name="Set the password").click()


def test_a_forgotten_password_is_replaced_by_the_link_of_a_mail(
    visitor: Visitor, demo: Demo, account: dict[str, str]
) -> None:
    visitor.expected.append(r"status of 422")
    page, new = visitor.page, secrets.token_urlsafe(12)
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    page.goto("/")
    page.get_by_role("link", name="Forgot the password?").click()
    expect(page.get_by_label("E-mail address")).to_be_focused()
    ask_for_a_link(page, account["email"])
    _, mail = until(lambda: (mails := demo.mails(account["email"])) and len(mails) == 2 and mails)
    link = link_of(mail)
    token = link.partition("#reset=")[2]

    page.goto(link)  # the same page but for the fragment, as where a link is pasted into the tab
    expect(page.get_by_label("New password")).to_be_focused()
    expect(page).to_have_url(f"{demo.url}/#/")
    set_password(page, "short")
    expect(page.get_by_role("alert")).to_contain_text("must have 10 characters or more")
    expect(page.get_by_label("New password")).to_be_focused()
    set_password(page, new)
    expect(page.get_by_role("status").filter(has_text="The new password is set. Sign in with it.")).to_be_visible()
    expect(page.get_by_label("E-mail address")).to_be_focused()
    visitor.sign_in_here({**account, "password": new})
    assert call(demo.url, "POST", "/api/auth/login", account).status == 401

    assert visitor.storage() == {"local": {}, "session": {}, "cookie": ""}
    page.go_back()
    page.go_forward()
    assert token not in page.url
    assert [address for address in visitor.addresses if token in address] in ([], [link])
    told = [request.url for request in requests if token in (request.post_data or "")]
    assert set(told) == {f"{demo.url}/api/auth/password/reset"}
    assert not [request.url for request in requests if "referer" in request.all_headers()]


def test_a_link_that_does_not_work_is_said_and_another_can_be_asked_for(
    visitor: Visitor, demo: Demo, account: dict[str, str]
) -> None:
    visitor.expected.append(r"status of 4(01|22)")
    page = visitor.page
    assert call(demo.url, "POST", "/api/auth/password/forgot", {"email": account["email"]}).status == 202
    _, mail = until(lambda: (mails := demo.mails(account["email"])) and len(mails) == 2 and mails)
    link = link_of(mail)
    used = {"token": link.partition("#reset=")[2], "password": secrets.token_urlsafe(12)}
    assert call(demo.url, "POST", "/api/auth/password/reset", used).status == 204

    page.goto(link)
    set_password(page, secrets.token_urlsafe(12))
    expect(page.get_by_role("alert")).to_contain_text(INVALID)
    expect(page.get_by_label("New password")).to_have_count(0)
    expect(page.get_by_label("E-mail address")).to_be_focused()
    ask_for_a_link(page, account["email"])
    assert link_of(until(lambda: demo.mails(account["email"])[2:])[0]) != link

    page.goto(f"{demo.url}/#reset={'made up' * 100}")
    expect(page).to_have_url(f"{demo.url}/#/")
    set_password(page, secrets.token_urlsafe(12))
    expect(page.get_by_role("alert")).to_contain_text(INVALID)
    expect(page.get_by_role("button", name="Send the link")).to_be_visible()
