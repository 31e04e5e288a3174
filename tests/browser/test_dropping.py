"""Files that are dragged onto the page from outside the browser, in Chromium, against the demo."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Demo
from tests.browser.visitor import Visitor

pytestmark = pytest.mark.timeout(300)


class Drag:
    """What is dragged, as the system hands it to the browser: real files and folders."""

    def __init__(self, visitor: Visitor, *files: Path, text: str = "") -> None:
        items = [{"mimeType": "text/plain", "data": text}] if text else []
        self._session = visitor.context.new_cdp_session(visitor.page)
        self._data = {"items": items, "files": [str(file) for file in files], "dragOperationsMask": 1}

    def over(self, target: Locator) -> None:
        self._send("dragEnter", target)
        self._send("dragOver", target)

    def drop(self, target: Locator) -> None:
        self.over(target)
        self._send("drop", target)

    def _send(self, kind: str, target: Locator) -> None:
        box = target.bounding_box()
        assert box is not None
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 5}
        self._session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": self._data})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The second one is of more than one piece, whatever a piece is on its way."""
    made = [tmp_path / "dropped.txt", tmp_path / "dropped.map"]
    made[0].write_text("dropped\n")
    made[1].write_bytes(bytes(range(256)) * 8192)
    return made


@pytest.fixture
def area(customer: Visitor) -> Locator:
    """Where files of Oakvale may be dropped."""
    customer.open("Oakvale", "Files")
    found = customer.page.locator(".drop")
    found.scroll_into_view_if_needed()
    return found


def test_files_that_are_dropped_arrive_whole(customer: Visitor, demo: Demo, area: Locator, files: list[Path]) -> None:
    page = customer.page
    page.get_by_label("Folder on the server").fill("drops")
    Drag(customer, *files).drop(area)
    expect(page.get_by_label("Uploads").get_by_text("· uploaded")).to_have_count(2)
    for file in files:
        (arrived,) = demo.files("Oakvale", file.name)
        assert arrived.parent.name == "drops"
        assert arrived.read_bytes() == file.read_bytes()


def test_the_place_shows_that_it_would_take_files_as_long_as_they_are_above_it(
    customer: Visitor, area: Locator, files: list[Path]
) -> None:
    beside = customer.page.get_by_role("heading", name="Details")
    drag = Drag(customer, *files)
    drag.over(area)
    expect(area).to_contain_class("is-over")
    drag.over(beside)
    expect(area).not_to_contain_class("is-over")
    drag.drop(area)
    expect(area).not_to_contain_class("is-over")
    Drag(customer, text="No file").over(area)
    expect(area).not_to_contain_class("is-over")


def test_what_cannot_be_uploaded_is_said_and_files_beside_it_are_sent(
    customer: Visitor, demo: Demo, area: Locator, files: list[Path], tmp_path: Path
) -> None:
    page = customer.page
    folder = tmp_path / "harbour"
    folder.mkdir()
    (folder / "inside.txt").write_text("not asked for")
    Drag(customer, folder, files[0]).drop(area)
    expect(page.get_by_role("alert")).to_contain_text("harbour: Folders are not sent: drop the files that are in them.")
    expect(page.get_by_label("Uploads").get_by_role("listitem")).to_have_count(1)
    expect(page.get_by_label("Uploads")).to_contain_text("8 B · uploaded")
    assert demo.files("Oakvale", "harbour") == demo.files("Oakvale", "inside.txt") == []

    page.get_by_role("button", name="Dismiss", exact=True).click()
    Drag(customer, text="Only words").drop(area)
    expect(page.get_by_role("alert")).to_contain_text("Nothing was uploaded: what was dropped is no file.")
    expect(page.get_by_label("Uploads").get_by_role("listitem")).to_have_count(1)


@pytest.mark.parametrize("kind", ["dragover", "drop"])
def test_a_file_that_is_dropped_beside_the_place_does_not_replace_the_page(
    customer: Visitor, area: Locator, kind: str
) -> None:
    """Some browsers would open it in a tab, others in the page's place: the event is asked whether one may."""
    page = customer.page
    for beside in (page.get_by_role("heading", name="Details"), page.get_by_label("Folder on the server")):
        assert beside.evaluate(IS_PREVENTED, kind)
    expect(page.get_by_label("Uploads").get_by_role("listitem")).to_have_count(0)


IS_PREVENTED = """(element, kind) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["x"], "x.txt"));
  return !element.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer }));
}"""


def test_text_may_be_dragged_into_a_field(customer: Visitor, area: Locator) -> None:
    field = customer.page.get_by_label("Folder on the server")
    Drag(customer, text="maps").drop(field)
    expect(field).to_have_value("maps")
