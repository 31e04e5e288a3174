"""The console's lines: bytes into bounded lines, a bounded scrollback, batches of text for whoever listens.

Where the bytes come from and who may listen is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator

LINE_LIMIT = 8 << 10  # characters; a longer line is cut into pieces, nothing is lost
SCROLLBACK_LIMIT = 1 << 20  # characters over all lines
FRAME_LIMIT = 64 << 10  # characters; one more line may follow
BATCH_SECONDS = 0.002
PARTIAL_SECONDS = 0.2  # a prompt has no line end: what waits this long is shown as a line
LAST_LOOK_SECONDS = 0.01  # where the agent itself was held up, the rest is there already: it is read first

Listener = Callable[[str], None]
LinesObserver = Callable[[list[str]], None]


class LineAssembler:
    """Bytes in, decoded lines out. Keeps at most one unfinished line of bounded length."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def unfinished(self) -> bool:
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        block, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._rest += data
            return self._cut_unfinished()
        lines = _lines(self._rest + block)
        self._rest = rest
        return lines + self._cut_unfinished()

    def flush(self) -> list[str]:
        """The unfinished line as it stands."""
        rest, self._rest = self._rest, b""
        return _lines(rest) if rest else []

    def _cut_unfinished(self) -> list[str]:
        if len(self._rest) < LINE_LIMIT:
            return []
        return self.flush()


def _lines(block: bytes) -> list[str]:
    text = block.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix("\r")
    lines = text.split("\n")
    if len(text) <= LINE_LIMIT or max(map(len, lines)) <= LINE_LIMIT:
        return lines
    return [line[at : at + LINE_LIMIT] for line in lines for at in range(0, max(len(line), 1), LINE_LIMIT)]


def frames(lines: Iterable[str]) -> Iterator[str]:
    """Join lines by newlines into texts of about FRAME_LIMIT characters at most."""
    batch: list[str] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line) + 1
        if size >= FRAME_LIMIT:
            yield "\n".join(batch)
            batch, size = [], 0
    if batch:
        yield "\n".join(batch)


class Console:
    """What a process printed, kept and handed on."""

    def __init__(self, *, max_lines: int) -> None:
        self._assembler = LineAssembler()
        self._max_lines = max_lines
        self._lines: deque[str] = deque()
        self._size = 0
        self._listeners: set[Listener] = set()
        self._observer: LinesObserver = lambda lines: None
        self._pending: list[str] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._partial_timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0

    def observe_output(self, observer: LinesObserver) -> None:
        """Show every line of the process, but none of the agent's own, to `observer`."""
        self._observer = observer

    def feed(self, data: bytes) -> None:
        """Take in output of the process."""
        self._take(self._assembler.feed(data))

    def end_of_output(self) -> None:
        """No more will follow: the unfinished line is a line."""
        self._take(self._assembler.flush())

    def note(self, text: str) -> None:
        """A line of the agent's own."""
        self._add([f"[agent] {text}"])

    def recent(self) -> list[str]:
        """The scrollback as frames."""
        return list(frames(self._lines))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Hand every further batch to `listener`, which must not block; the call that ends it is returned."""
        self._flush()  # what waits is in the scrollback already, which this listener gets by `recent`
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _take(self, lines: list[str]) -> None:
        self._watch_unfinished()
        if lines:
            self._observer(lines)
            self._add(lines)

    def _watch_unfinished(self) -> None:
        if self._partial_timer is not None:
            self._partial_timer.cancel()
            self._partial_timer = None
        if self._assembler.unfinished:
            self._partial_timer = asyncio.get_running_loop().call_later(PARTIAL_SECONDS, self._look_once_more)

    def _look_once_more(self) -> None:
        self._partial_timer = asyncio.get_running_loop().call_later(LAST_LOOK_SECONDS, self.end_of_output)

    def _add(self, lines: list[str]) -> None:
        self._lines.extend(lines)
        self._size += sum(map(len, lines))
        while len(self._lines) > self._max_lines or self._size > SCROLLBACK_LIMIT:
            self._size -= len(self._lines.popleft())
        if not self._listeners:
            return
        self._pending += lines
        if self._flush_timer is not None:
            return
        loop = asyncio.get_running_loop()
        wait = self._flushed_at + BATCH_SECONDS - loop.time()
        if wait <= 0:
            self._flush()
        else:
            self._flush_timer = loop.call_later(wait, self._flush)

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if not self._pending:
            return
        self._flushed_at = asyncio.get_running_loop().time()
        pending, self._pending = self._pending, []
        for frame in frames(pending):
            for listener in tuple(self._listeners):
                listener(frame)
