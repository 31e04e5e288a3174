"""What holds on every view: the keyboard suffices, secrets stay where they belong, a phone is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Demo
from tests.browser.visitor import PHONE, Visitor
from tests.control_plane_process import call, until

pytestmark = pytest.mark.timeout(300)


def test_the_keyboard_suffices_from_signing_in_to_a_restart(visitor: Visitor, demo: Demo) -> None:
    page, keyboard = visitor.page, visitor.page.keyboard
    page.goto("/")
    expect(page.get_by_label("E-mail address")).to_be_focused()
    keyboard.type(demo.customer["email"])
    keyboard.press("Tab")
    keyboard.type(demo.customer["password"])
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Fleet")).to_be_focused()
    visitor.tab_to(visitor.row("Workshop"))
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Workshop")).to_be_focused()

    expect(visitor.console_status).to_have_text("Live")
    line = page.get_by_label("Command", exact=True)
    visitor.tab_to(line)
    keyboard.type("echo by hand: $((20 + 22))")
    keyboard.press("Enter")
    expect(visitor.screen).to_contain_text("by hand: 42")
    history = page.get_by_role("button", name="Latest commands")
    visitor.tab_to(history)
    keyboard.press("Enter")
    expect(page.get_by_role("button", name="echo by hand")).to_be_focused()
    keyboard.press("Escape")
    expect(history).to_be_focused()

    restart = page.get_by_role("button", name="Restart")
    visitor.tab_to(restart, "Shift+Tab")
    keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Restart Workshop?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(restart).to_be_focused()
    keyboard.press("Enter")
    visitor.tab_to(dialog.get_by_role("button", name="Restart"))
    held: list[Route] = []
    page.route("**/restart", lambda route: held.append(route))
    keyboard.press("Enter")
    expect(page.get_by_role("button", name="Restarting …")).to_be_focused()
    until(lambda: page.evaluate("1") and held)
    seen = demo.instance("Workshop")["state"]["changedAt"]
    until(lambda: page.evaluate("1") and demo.instance("Workshop")["state"]["changedAt"] > seen)  # its load changes
    with page.expect_response("**/state"):
        pass  # and the page hears of it
    expect(page.get_by_role("button", name="Restarting …")).to_be_focused()
    held[0].continue_()
    expect(restart).to_be_enabled()
    expect(visitor.state).to_contain_text("Ready")
    expect(restart).to_be_focused()

    files = page.get_by_role("link", name="Files")
    visitor.tab_to(files)
    keyboard.press("Enter")
    visitor.tab_to(page.get_by_label("Choose files"))


def test_the_console_is_left_by_tab_and_scrolled_by_keys(customer: Visitor) -> None:
    customer.open("Oakvale")
    customer.say("flood 500")
    expect(customer.screen).to_contain_text("Flood over: 500 lines")
    output = customer.page.get_by_label("Console output")
    customer.tab_to(output, "Shift+Tab")
    customer.page.keyboard.press("Home")
    expect(customer.screen).not_to_contain_text("Flood over: 500 lines")
    latest = customer.page.get_by_role("button", name="Latest output")
    expect(latest).to_be_visible()
    customer.tab_to(latest)
    customer.page.keyboard.press("Enter")
    expect(customer.screen).to_contain_text("Flood over: 500 lines")


def test_tokens_are_in_memory_alone_and_a_reload_keeps_the_session(visitor: Visitor, demo: Demo) -> None:
    page = visitor.page
    with page.expect_response("**/api/auth/login") as signing_in:
        visitor.sign_in(demo.customer)
    first = signing_in.value.json()
    visitor.open("Oakvale")
    expect(page.locator(".console-status")).to_have_text("Live")
    assert visitor.storage() == {"local": {}, "session": {}, "cookie": ""}
    with page.expect_response("**/api/auth/refresh") as renewing:
        page.reload()
    expect(page.get_by_role("heading", name="Oakvale")).to_be_visible()
    assert visitor.storage() == {"local": {}, "session": {}, "cookie": ""}
    second = renewing.value.json()
    secrets = [answer[name] for answer in (first, second) for name in ("accessToken", "refreshToken")]
    assert first["refreshToken"] != second["refreshToken"]
    assert not [address for address in visitor.addresses for secret in secrets if secret in address]

    with page.expect_response("**/api/auth/logout"):  # the page is left at once, and the control plane told then
        page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert call(demo.url, "GET", "/api/auth/me", None, second["accessToken"]).status == 401
    assert call(demo.url, "POST", "/api/auth/refresh", {"refreshToken": second["refreshToken"]}).status == 401
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_session_that_ended_elsewhere_is_said_and_one_returns_to_the_same_place(
    customer: Visitor, demo: Demo
) -> None:
    customer.expected.append(r"status of 401 .*Unauthorized")
    page = customer.page
    customer.open("Oakvale", "Backups")
    assert call(demo.url, "POST", "/api/auth/logout-all", None, demo.token()).status == 204
    expect(page.get_by_role("status").filter(has_text="Your session has ended.")).to_be_visible()
    page.get_by_label("E-mail address").fill(demo.customer["email"])
    page.get_by_label("Password").fill(demo.customer["password"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Oakvale")).to_be_visible()
    expect(page.get_by_role("button", name="Create a backup")).to_be_visible()


def test_an_error_of_the_api_is_shown_as_a_person_would_read_it(customer: Visitor) -> None:
    customer.expected.append(r"status of 50[34]")
    page = customer.page
    page.route(
        "**/backups?view=normalized",
        lambda route: route.fulfill(
            status=503,
            json={
                "error": "The agent cannot be reached.",
                "code": "agent_unreachable",
                "details": None,
                "requestId": "req-17",
            },
        ),
    )
    customer.open("Oakvale", "Backups")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("The backups could not be read. The agent cannot be reached.")
    expect(problem).to_contain_text("Its container may be off")
    expect(problem).to_contain_text("req-17")
    page.unroute("**/backups?view=normalized")
    problem.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="No backups yet")).to_be_visible()


def test_a_phone_suffices_and_nothing_runs_off_its_side(visit: Callable[..., Visitor], demo: Demo) -> None:
    visitor = visit(viewport=PHONE, has_touch=True, is_mobile=True)
    page = visitor.page

    def fits() -> bool:
        width: int = page.evaluate("() => document.scrollingElement.scrollWidth")  # `innerWidth` grows with it
        return width <= PHONE["width"]

    page.goto("/")
    assert fits()
    visitor.sign_in(demo.customer)
    expect(visitor.row("Oakvale")).to_contain_text("Ready")
    assert fits()
    for panel in ("Console", "Backups", "Files"):
        visitor.open("Oakvale", panel)
        expect(page.get_by_role("region", name=panel)).to_be_visible()
        assert fits(), panel
    visitor.panel("Console")
    visitor.say("say from a phone")
    expect(visitor.screen).to_contain_text("from a phone")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_by_day_and_night(
    visit: Callable[..., Visitor], demo: Demo, scheme: str
) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    visitor = visit(color_scheme=scheme)
    visitor.sign_in(demo.customer)
    expect(visitor.row("Oakvale")).to_be_visible()
    ratios: dict[str, float] = visitor.page.evaluate(CONTRASTS)
    assert len(ratios) > 8
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


CONTRASTS = """() => {
  const value = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const light = (name) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(value(name).slice(at, at + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = [["--text", "--ground"], ["--text", "--surface"], ["--text-quiet", "--ground"],
    ["--text-quiet", "--surface"], ["--text-quiet", "--sunken"], ["--accent", "--surface"],
    ["--accent", "--busy-soft"], ["--on-accent", "--accent"],
    ...["ok", "busy", "warn", "bad", "idle"].map((tone) => [`--${tone}`, `--${tone}-soft`])];
  return Object.fromEntries(pairs.map(([front, back]) => {
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    return [`${front} on ${back}`, (high + 0.05) / (low + 0.05)];
  }));
}"""


def test_events_of_kinds_that_the_page_does_not_know_reach_whoever_listens(visitor: Visitor) -> None:
    visitor.page.goto("/")
    heard: list[Any] = visitor.page.evaluate(
        """async () => {
          const { EventBus } = await import("/static/js/event-bus.js");
          const { EventParser } = await import("/static/js/events.js");
          const { FleetStore } = await import("/static/js/fleet-store.js");
          const [bus, store, heard] = [new EventBus(), new FleetStore(), []];
          const failing = bus.on("operation", () => { throw new Error("one that fails"); });
          bus.on("operation", (data) => heard.push(["operation", data]));
          const stop = bus.on("billing", (data) => heard.push(["billing", data]));
          const failures = [];
          addEventListener("error", (event) => { failures.push(event.message); event.preventDefault(); });
          const parser = new EventParser(({ event, data }) => {
            store.take(event, JSON.parse(data));
            bus.tell(event, JSON.parse(data));
          });
          parser.feed('id: a-1\\nevent: operation\\ndata: {"id":"op_1"}\\n\\nevent: bil');
          parser.feed('ling\\r\\ndata: {"plan":"small"}\\r\\n\\r\\n: keepalive\\n\\n');
          parser.feed('event: never heard of\\ndata: 1\\n\\n');
          failing();
          stop();
          parser.feed('event: billing\\ndata: {"plan":"large"}\\n\\n');
          return [...heard, ["failures", failures.length]];
        }"""
    )
    assert heard == [["operation", {"id": "op_1"}], ["billing", {"plan": "small"}], ["failures", 1]]


def test_a_violation_of_the_policy_would_be_noticed(visitor: Visitor) -> None:
    visitor.page.goto("/")
    visitor.page.get_by_role("heading", name="Sign in").wait_for()
    visitor.page.evaluate("() => document.querySelector('h1').setAttribute('style', 'color: red')")
    until(lambda: visitor.page.evaluate("1") and any("Content Security Policy" in each for each in visitor.complaints))
    visitor.expected.append("Content Security Policy")


def test_the_page_works_by_either_name_of_the_demo(visit: Callable[..., Visitor], demo: Demo) -> None:
    visitor = visit(base_url=demo.url.replace("127.0.0.1", "localhost"))
    visitor.sign_in(demo.customer)
    visitor.open("Oakvale")
    expect(visitor.page.locator(".console-status")).to_have_text("Live")


NAMELESS = """() => [...document.querySelectorAll("button, a[href], input, progress, dialog, [role]")]
  .filter((element) => element.checkVisibility())
  .filter((element) => !element.matches("[role=presentation], [role=status], [role=alert]"))
  .filter((element) => !(element.ariaLabel || element.textContent.trim() || element.labels?.[0]?.textContent.trim()
    || element.getAttribute("aria-labelledby") || element.closest(".xterm")))
  .map((element) => element.outerHTML.slice(0, 120))"""


def test_whatever_can_be_used_has_a_name_and_each_view_one_heading_and_one_main(visitor: Visitor, demo: Demo) -> None:
    page = visitor.page

    def check(view: str) -> None:
        assert page.evaluate(NAMELESS) == [], view
        assert page.locator("h1:visible").count() == 1, view
        assert page.locator("main:visible").count() == 1, view

    page.goto("/#/forgotten")
    page.get_by_role("heading", name="Forgot the password?").wait_for()
    check("forgotten")
    page.goto("/")
    page.get_by_role("heading", name="Sign in").wait_for()
    check("sign-in")
    visitor.sign_in(demo.customer)
    expect(visitor.row("Oakvale")).to_be_visible()
    check("fleet")
    visitor.open("Oakvale")
    expect(page.locator(".console-status")).to_have_text("Live")
    page.get_by_label("Command", exact=True).press("Control+f")
    check("console")
    visitor.panel("Backups")
    page.get_by_role("button", name="Create a backup").click()
    check("backups, with its dialog")
    page.keyboard.press("Escape")
    visitor.panel("Files")
    page.get_by_label("Choose files").wait_for(state="attached")
    check("files")
    page.goto("/#/instances/gs_none")
    page.get_by_role("heading", name="There is no such instance").wait_for()
    check("missing")
