"""The workbench of a real code-server as a person uses it: files by quick open, the keyboard, the terminal."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, WebSocket, expect

READY_SECONDS = 90
PATIENCE_MS = 60_000


class Workbench:
    """Drives the page it is given. Remembers every websocket that the page opened."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sockets: list[WebSocket] = []
        page.on("websocket", lambda socket: self.sockets.append(socket))

    def open(self, url: str) -> None:
        """Until it is drawn and connected: the explorer lists the files of the folder, which come by websocket."""
        self.page.goto(url, wait_until="commit")
        self.until_ready()

    def until_ready(self) -> None:
        expect(self.page.locator(".monaco-workbench")).to_be_visible(timeout=READY_SECONDS * 1000)
        expect(self.page.locator(".explorer-folders-view .monaco-list-row").first).to_be_visible(
            timeout=READY_SECONDS * 1000
        )

    def open_file(self, name: str) -> None:
        # From the explorer: quick open asks an index, which may not know the file yet.
        row = self.page.locator(".explorer-folders-view .monaco-list-row", has_text=name)
        expect(row).to_be_visible(timeout=PATIENCE_MS)
        row.dblclick()
        expect(self.page.locator(".tab.active", has_text=name)).to_be_visible(timeout=PATIENCE_MS)
        expect(self.page.locator(".editor-instance .view-lines").first).to_be_visible(timeout=PATIENCE_MS)

    def type_at_the_start(self, text: str) -> None:
        self.page.locator(".editor-instance .view-line").first.click()
        self.page.keyboard.press("Control+Home")
        self.page.keyboard.type(text)
        expect(self.page.locator(".tab.active.dirty")).to_be_visible(timeout=PATIENCE_MS)

    def save(self) -> None:
        """Until the tab says that nothing is unsaved."""
        self.page.keyboard.press("Control+s")
        expect(self.page.locator(".tab.active.dirty")).to_have_count(0, timeout=PATIENCE_MS)

    @property
    def _terminal(self) -> Locator:
        """The latest screen: on a reconnection the old one stays beside it for a moment."""
        return self.page.locator(".terminal-wrapper.active .xterm-screen").last

    def open_terminal(self) -> None:
        self.page.keyboard.press("Control+Backquote")
        expect(self._terminal).to_be_visible(timeout=PATIENCE_MS)

    def type_in_terminal(self, line: str) -> None:
        self._terminal.click()
        self.page.keyboard.type(line)
        self.page.keyboard.press("Enter")
