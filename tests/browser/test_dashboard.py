"""What a customer does at the page, in Chromium, against the demo: real agents, real processes, real files."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FilePayload, expect

from tests.browser.conftest import Demo
from tests.browser.visitor import Visitor
from tests.control_plane_process import call, until

pytestmark = pytest.mark.timeout(300)


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def power(demo: Demo, name: str, action: str) -> None:
    answer = call(demo.url, "POST", f"{demo.path(name)}/{action}", None, demo.token())
    assert answer.status == 202


def hold_lists(visitor: Visitor) -> None:
    """From now on lists of instances are asked for in vain: what changes was told by an event."""
    visitor.page.route("**/api/game/servers?*", lambda route: None)
    visitor.page.route("**/api/dev?*", lambda route: None)


def test_signing_in_shows_ones_instances_and_how_they_are(visitor: Visitor, demo: Demo) -> None:
    page = visitor.page
    visitor.sign_in(demo.customer)
    for name in ("Oakvale", "Workshop"):
        expect(visitor.row(name)).to_contain_text("Ready")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    expect(page).to_have_title("Fleet · controlplane")
    page.get_by_label("Search").fill("work")
    expect(visitor.row("Oakvale")).to_have_count(0)
    expect(visitor.row("Workshop")).to_be_visible()


def test_a_wrong_password_is_said_in_words(visitor: Visitor, demo: Demo) -> None:
    visitor.expected.append(r"status of 401 .*Unauthorized")  # the browser's own note of the answer
    page = visitor.page
    page.goto("/")
    page.get_by_label("E-mail address").fill(demo.customer["email"])
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("password")
    expect(page.get_by_role("alert")).not_to_contain_text("401")
    expect(page.get_by_label("Password")).to_be_focused()
    page.keyboard.type(demo.customer["password"])  # what was wrong is selected, so it is replaced
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Fleet")).to_be_visible()


def test_a_change_of_state_arrives_by_itself(customer: Visitor, demo: Demo) -> None:
    expect(customer.row("Oakvale")).to_contain_text("Ready")
    hold_lists(customer)
    power(demo, "Oakvale", "stop")
    expect(customer.row("Oakvale")).to_contain_text("Stopped")
    power(demo, "Oakvale", "start")
    expect(customer.row("Oakvale")).to_contain_text("Ready")
    customer.until_told("Oakvale is now: Ready.")  # said to a screen reader as well


def test_the_power_buttons_ask_act_and_say_when_it_is_done(customer: Visitor) -> None:
    customer.open("Workshop")
    page = customer.page
    start, stop = (page.get_by_role("button", name=name, exact=True) for name in ("Start", "Stop"))
    expect(start).to_be_disabled()
    stop.click()
    page.get_by_role("dialog", name="Stop Workshop?").get_by_role("button", name="Stop").click()
    expect(customer.state).to_contain_text("Stopped")
    expect(stop).to_be_disabled()
    start.click()
    expect(customer.state).to_contain_text("Ready")


def test_a_command_is_answered_in_the_console_and_nothing_in_it_is_markup(customer: Visitor) -> None:
    customer.open("Oakvale")
    page = customer.page
    customer.say("say <img src=x onerror=alert(1)> good morning")
    expect(customer.screen).to_contain_text("<img src=x onerror=alert(1)> good morning")
    customer.say("status")
    expect(customer.screen).to_contain_text("finds kept")
    customer.say("say finds kept")
    expect(customer.screen).to_contain_text("[Server] finds kept")
    line = page.get_by_label("Command", exact=True)
    for _ in range(3):
        line.press("ArrowUp")
    expect(line).to_have_value("say <img src=x onerror=alert(1)> good morning")
    line.press("Control+f")
    page.get_by_role("searchbox", name="Search the output").fill("finds kept")
    expect(page.get_by_text("3 of 3")).to_be_visible()  # the latest first, then older ones
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 of 3")).to_be_visible()
    page.keyboard.press("Escape")
    expect(line).to_be_focused()


def test_a_viewer_that_comes_later_finds_what_was_said_before(customer: Visitor) -> None:
    customer.open("Oakvale")
    customer.say("say remember the harvest")
    expect(customer.screen).to_contain_text("[Server] remember the harvest")
    customer.panel("Files")
    customer.panel("Console")
    expect(customer.screen).to_contain_text("[Server] remember the harvest")


def test_output_that_is_missing_is_said_where_it_is_missing(customer: Visitor) -> None:
    def with_a_gap(socket: Any) -> None:
        server = socket.connect_to_server()
        server.on_message(socket.send)

        def from_page(message: str) -> None:
            if "mind the gap" in message:
                socket.send('{"event":"gap","from":90000,"to":90041,"reason":"too_slow"}')
            server.send(message)

        socket.on_message(from_page)

    customer.page.route_web_socket("**/console", with_a_gap)
    customer.open("Oakvale")
    customer.say("say mind the gap")
    expect(customer.screen).to_contain_text("42 messages of output missing here: this connection was too slow")


def test_a_console_that_was_cut_comes_back_and_goes_on(customer: Visitor, demo: Demo) -> None:
    sockets: list[Any] = []

    def cuttable(socket: Any) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    customer.page.route_web_socket("**/console", cuttable)
    customer.open("Oakvale")
    customer.say("say before the cut")
    expect(customer.screen).to_contain_text("[Server] before the cut")
    sockets[0].close(code=4408, reason="")
    call(demo.url, "POST", f"{demo.path('Oakvale')}/console/command", {"command": "say meanwhile"}, demo.token())
    expect(customer.screen).to_contain_text("too slow for the console's output")
    expect(customer.screen).to_contain_text("meanwhile")
    customer.say("say after the cut")
    expect(customer.screen).to_contain_text("after the cut")
    _, cut, since = customer.screen.inner_text().partition("too slow for the console's output")
    assert cut
    assert "before the cut" not in since, "what was shown already is not shown again"


def test_a_token_that_ends_soon_is_renewed_on_the_same_socket(customer: Visitor) -> None:
    sent: list[dict[str, Any]] = []

    def hurried(socket: Any) -> None:
        server = socket.connect_to_server()

        def from_page(text: str) -> None:
            message = json.loads(text)
            sent.append(message)
            server.send(text)
            if message.get("command") == "say hurry":
                socket.send('{"event":"tokenExpiring"}')

        socket.on_message(from_page)

    customer.page.route_web_socket("**/console", hurried)
    customer.open("Oakvale")
    with customer.page.expect_response("**/api/auth/refresh") as renewing:
        customer.say("say hurry")
    fresh = renewing.value.json()["accessToken"]
    until(lambda: customer.page.evaluate("true") and len(sent) == 3)
    customer.say("say still here")
    expect(customer.screen).to_contain_text("[Server] still here")
    assert [message["event"] for message in sent] == ["auth", "command", "auth", "command"]
    assert sent[2]["token"] == fresh


def test_a_suspension_closes_the_console_and_its_end_opens_it_again(customer: Visitor, demo: Demo) -> None:
    admin = demo.token("admin")
    customer.open("Workshop")
    console = customer.page.locator(".console-status")
    expect(console).to_have_text("Live")
    path = f"/api/admin/instances/{demo.instance('Workshop')['id']}"
    assert call(demo.url, "POST", f"{path}/suspend", {"reason": "An invoice is open."}, admin).status == 200
    expect(customer.state).to_contain_text("Suspended")
    expect(customer.state).to_contain_text("An invoice is open.")
    expect(console).to_have_text("The instance is suspended.")
    expect(customer.page.get_by_role("button", name="Stop")).to_be_disabled()
    until(lambda: demo.instance("Workshop")["state"]["operation"] is None)  # its machine is stopped
    assert call(demo.url, "POST", f"{path}/unsuspend", None, admin).status == 200
    expect(customer.state).to_contain_text("Ready")
    expect(console).to_have_text("Live")


def test_a_killed_agent_is_said_with_what_is_known_and_what_is_not(customer: Visitor, demo: Demo) -> None:
    customer.open("Emberfall")
    expect(customer.state).to_contain_text("Ready")
    expect(customer.page.get_by_label("Console", exact=True)).to_contain_text("Live")
    os.kill(demo.agent("Emberfall")["pid"], signal.SIGKILL)
    expect(customer.state).to_contain_text("Unreachable")
    expect(customer.state).to_contain_text(
        "Its agent cannot be reached. When it was last heard from, its process was running."
    )
    expect(customer.page.locator(".console-status")).to_contain_text(
        "The agent's console cannot be reached. Trying again"
    )
    customer.say_at_once("say is anybody there")
    expect(customer.page.get_by_role("alert")).to_contain_text("Not sent: the agent's console is not connected.")
    expect(customer.screen).to_contain_text("Not sent: the agent's console is not connected.")
    customer.page.get_by_role("navigation", name="Main").get_by_role("link", name="Fleet").click()
    customer.page.get_by_role("button", name="Needs attention").click()
    expect(customer.row("Emberfall")).to_contain_text("Unreachable")
    expect(customer.row("Oakvale")).to_have_count(0)


def test_a_file_of_64_megabytes_arrives_whole(customer: Visitor, demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "world-64.bin"
    with file.open("wb") as opened:
        for _ in range(64):
            opened.write(os.urandom(1 << 20))
    customer.open("Oakvale", "Files")
    page = customer.page
    page.get_by_label("Folder on the server").fill("maps")
    page.get_by_label("Choose files").set_input_files(file)
    expect(page.get_by_label("Uploads").get_by_text("67.1 MB · uploaded")).to_be_visible()
    (arrived,) = demo.files("Oakvale", file.name)
    assert arrived.parent.name == "maps"
    assert digest(arrived) == digest(file)


def test_a_cancelled_upload_leaves_nothing_behind(customer: Visitor, demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "unwanted.bin"
    file.write_bytes(bytes(32 << 20))
    customer.open("Oakvale", "Files")
    page = customer.page
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 256 << 10}
    customer.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.get_by_label("Choose files").set_input_files(file)
    uploads = page.get_by_label("Uploads")
    expect(uploads).to_contain_text("of 33.6 MB")
    until(lambda: demo.half_files("Oakvale"))
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Fleet").click()
    page.get_by_text("Uploading to").get_by_role("link", name="Oakvale").click()  # it went on, and one finds it again
    cancel = page.get_by_role("button", name="Cancel the upload of unwanted.bin")
    cancel.click()
    expect(uploads).to_contain_text("Stopped")
    until(lambda: not demo.half_files("Oakvale"))
    assert demo.files("Oakvale", file.name) == []
    page.get_by_role("button", name="Dismiss unwanted.bin").click()
    expect(uploads.get_by_role("listitem")).to_have_count(0)


def test_a_refused_upload_says_why(customer: Visitor, demo: Demo) -> None:
    customer.expected.append(r"status of 4\d\d")
    customer.open("Oakvale", "Files")
    page = customer.page
    page.get_by_label("Folder on the server").fill("../../elsewhere")
    file: FilePayload = {"name": "x.txt", "mimeType": "text/plain", "buffer": b"x"}
    page.get_by_label("Choose files").set_input_files([file])
    item = page.get_by_label("Uploads").get_by_role("listitem")
    expect(item).to_contain_text("Not uploaded")
    expect(item).to_contain_text("path")
    assert demo.files("Oakvale", "x.txt") == []


def test_a_backup_brings_a_files_old_content_back(customer: Visitor, demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "rules.txt"
    customer.open("Oakvale", "Files")
    page = customer.page

    def upload(content: str) -> None:
        customer.panel("Files")
        file.write_text(content)
        page.get_by_label("Choose files").set_input_files(file)
        expect(page.get_by_label("Uploads").get_by_text(f"{len(content)} B · uploaded")).to_be_visible()

    upload("the old rules")
    customer.panel("Backups")
    page.get_by_role("button", name="Create a backup").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("before the feast")
    dialog.get_by_role("button", name="Create it").click()
    restore = page.get_by_role("button", name="Restore before the feast")
    expect(restore).to_be_enabled()

    upload("rules made up after the feast")
    (place,) = demo.files("Oakvale", "rules.txt")
    assert place.read_text() == "rules made up after the feast"

    customer.panel("Backups")
    restore.click()
    confirm = dialog.get_by_role("button", name="Replace the files")
    expect(confirm).to_be_disabled()
    dialog.get_by_label("Type Oakvale to go on").fill("Oakvale")
    confirm.click()
    customer.until_told("“before the feast” is restored.")
    assert place.read_text() == "the old rules"
    expect(customer.state).to_contain_text("Ready")

    delete = page.get_by_role("button", name="Delete before the feast")
    delete.click()
    dialog.get_by_role("button", name="Cancel").click()
    expect(delete).to_be_focused()
    delete.click()
    dialog.get_by_role("button", name="Delete it").click()
    expect(delete).to_have_count(0)


def test_a_backup_under_way_is_shown_until_it_is_made(customer: Visitor) -> None:
    customer.open("Oakvale", "Backups")
    page = customer.page
    held: list[Any] = []
    page.route("**/backups", lambda route: held.append(route))
    create = page.get_by_role("button", name="Create a backup")
    create.click()
    page.get_by_role("dialog").get_by_label("Name").fill("slow")
    page.keyboard.press("Enter")
    progress = page.get_by_role("status").filter(has_text="Making a backup")
    expect(progress).to_be_visible()
    expect(create).to_be_disabled()
    create.click(force=True)
    expect(page.get_by_role("dialog")).to_have_count(0)
    customer.panel("Files")
    customer.panel("Backups")
    expect(progress).to_be_visible()  # it goes on while one looks elsewhere
    until(lambda: page.evaluate("1") and held)
    held[0].continue_()
    page.get_by_role("button", name="Delete slow").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="No backups yet")).to_be_visible()
    expect(progress).to_be_hidden()


def test_a_backup_made_elsewhere_appears_by_itself(customer: Visitor, demo: Demo) -> None:
    customer.open("Oakvale", "Backups")
    expect(customer.page.get_by_role("heading", name="No backups yet")).to_be_visible()
    path = f"{demo.path('Oakvale')}/backups"
    made = call(demo.url, "POST", path, {"name": "by a script"}, demo.token())
    assert made.status == 201
    expect(customer.page.get_by_role("heading", name="by a script")).to_be_visible()
    (backup,) = call(demo.url, "GET", f"{path}?view=normalized", None, demo.token()).body["backups"]
    assert call(demo.url, "DELETE", f"{path}/{backup['id']}", None, demo.token()).status < 300
    expect(customer.page.get_by_role("heading", name="by a script")).to_have_count(0)
