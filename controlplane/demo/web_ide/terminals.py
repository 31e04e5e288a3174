"""Real shells on pseudo-terminals, which outlive the websocket that shows them, as code-server's do.

A page that comes back with the same name finds its shell and the last of its output again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

TERMINAL_LIMIT = 8
SCROLLBACK_BYTES = 64 << 10
READ_BYTES = 16 << 10

Watcher = Callable[[bytes | None], None]
"""Called with output, and with None at the end."""


class Terminal:
    """One shell. Whoever watches is called on the loop."""

    def __init__(self, folder: Path) -> None:
        self._master, theirs = pty.openpty()
        self._process = subprocess.Popen(
            ["/bin/sh", "-i"],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PS1": "$ ", "TERM": "dumb", "HOME": str(folder)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # without it the shell has no job control
        )
        os.close(theirs)
        os.set_blocking(self._master, False)
        self._scrollback = b""
        self._watchers: set[Watcher] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._master, self._on_output)
        self.is_open = True

    def watch(self, watcher: Watcher) -> None:
        """`watcher` gets the scrollback at once and then what comes."""
        self._watchers.add(watcher)
        if self._scrollback:
            watcher(self._scrollback)

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def type(self, keys: bytes) -> None:
        """What the terminal cannot take at once is dropped: nobody types that fast."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._master, keys)

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._master)
        os.close(self._master)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for watcher in list(self._watchers):
            watcher(None)

    def _on_output(self) -> None:
        try:
            data = os.read(self._master, READ_BYTES)
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says when its last program has ended
                raise
            data = b""
        if not data:
            self.close()
            return
        self._scrollback = (self._scrollback + data)[-SCROLLBACK_BYTES:]
        for watcher in list(self._watchers):
            watcher(data)


class Terminals:
    """The shells by name, at most TERMINAL_LIMIT; the oldest makes room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Terminal] = {}

    def get(self, name: str) -> Terminal:
        known = self._open.get(name)
        if known is not None and known.is_open:
            return known
        self._open.pop(name, None)
        if len(self._open) >= TERMINAL_LIMIT:
            self._open.pop(next(iter(self._open))).close()
        fresh = self._open[name] = Terminal(self._folder)
        return fresh

    def close(self) -> None:
        for terminal in self._open.values():
            terminal.close()
        self._open.clear()
