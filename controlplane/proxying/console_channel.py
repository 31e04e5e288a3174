"""One console: one connection to the agent however many viewers, kept up with backoff, fanned out from a scrollback.

No viewer slows the agent: what it sends is taken whoever reads, and bounded by what falls out of the scrollback.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from controlplane.errors import AgentError
from controlplane.models import AgentEndpoint
from controlplane.proxying.console_viewer import Viewer
from controlplane.proxying.frames import CloseCode
from controlplane.proxying.scrollback import OUTPUT_LIMIT_CHARACTERS, Scrollback, pieces, without_replay
from controlplane.proxying.websocket import WebSocket

logger = logging.getLogger(__name__)

UPSTREAM_MESSAGE_LIMIT_BYTES = 1 << 20
FIRST_BACKOFF_SECONDS = 0.5
BACKOFF_LIMIT_SECONDS = 15.0
STEADY_SECONDS = 10.0
"""A connection that lasted so long was a good one: the next backoff begins anew."""

GIVE_UP_SECONDS = 120.0
"""Of failing: then the viewers are sent away, and may come back."""

SECONDS_PER_VIEWER = 0.00005
FLUSH_LIMIT_SECONDS = 0.05
"""Output is sent at once after a pause, and else gathered for some times as long as sending it to all viewers takes."""

PENDING_LIMIT_CHARACTERS = 1 << 20
REPLAY_BEGINS_SECONDS = 5.0
REPLAY_SECONDS = 0.2
"""After a reconnection the agent's own scrollback is waited for, and gathered for so long from its first text on, to
leave out what was shown before."""

REMEMBERED_LINES = 20

Dial = Callable[[AgentEndpoint, Callable[[], WebSocket]], Awaitable[WebSocket]]
"""Open an agent's console stream. Raises AgentError."""


class Upstream(WebSocket):
    """The connection to the agent."""

    __slots__ = ("_on_text", "lost")

    def __init__(self, on_text: Callable[[str], None], lost: asyncio.Future[int]) -> None:
        super().__init__(is_client=True, message_limit_bytes=UPSTREAM_MESSAGE_LIMIT_BYTES)
        self._on_text = on_text
        self.lost = lost

    def message_received(self, message: bytes, *, is_text: bool) -> None:
        self._on_text(message.decode("utf-8", "replace"))

    def closed(self, code: int) -> None:
        if not self.lost.done():
            self.lost.set_result(code)


class Channel:
    """`limit_bytes` says how much scrollback this console may hold at the moment."""

    def __init__(
        self,
        instance_id: str,
        endpoint: AgentEndpoint,
        stream_id: str,
        *,
        dial: Dial,
        limit_bytes: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        self.instance_id = instance_id
        self.endpoint = endpoint
        self.stream_id = stream_id
        self.scrollback = Scrollback()
        self.viewers: set[Viewer] = set()
        self.idle_since = now()
        self._dial = dial
        self._limit_bytes = limit_bytes
        self._now = now
        self._upstream: Upstream | None = None
        self._retry_now = asyncio.Event()
        self._trouble: dict[str, object] | None = {"reason": "connecting", "retryInSeconds": 0}
        self._pending: list[str] = []
        self._pending_characters = 0
        self._flushed_at = 0.0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._seen: list[str] | None = None
        self._keeper = asyncio.get_running_loop().create_task(self._keep_connected(), name=f"console:{instance_id}")

    # -- viewers -----------------------------------------------------------------------------------------------------

    def join(self, viewer: Viewer) -> None:
        self.viewers.add(viewer)
        viewer.admitted(self)
        self._tell_state(viewer)

    def leave(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        if not self.viewers:
            self.idle_since = self._now()

    def send_line(self, line: str) -> bool:
        upstream = self._upstream
        if upstream is None or not upstream.is_open or upstream.is_congested:
            return False
        upstream.send_text(line.encode())
        return True

    def _tell_state(self, viewer: Viewer) -> None:
        trouble = self._trouble
        viewer.tell("state", connected=trouble is None, **(trouble or {"reason": None, "retryInSeconds": None}))

    def _tell_all(self, trouble: dict[str, object] | None) -> None:
        self._trouble = trouble
        for viewer in tuple(self.viewers):
            self._tell_state(viewer)

    def close_viewers(self, code: CloseCode, reason: str) -> None:
        for viewer in tuple(self.viewers):
            viewer.close(code, reason)

    # -- output ------------------------------------------------------------------------------------------------------

    def _take(self, text: str) -> None:
        text = text.removesuffix("\n").removesuffix("\r")
        if self._seen is not None and not self._pending:
            self._gather_replay(REPLAY_SECONDS)
        self._pending.append(text)
        self._pending_characters += len(text)
        if self._pending_characters >= OUTPUT_LIMIT_CHARACTERS and self._seen is None:
            self._flush()
        elif self._pending_characters >= PENDING_LIMIT_CHARACTERS:
            self._end_replay()
        elif self._seen is None and self._flush_timer is None:
            self._flush_soon()

    def _flush_soon(self) -> None:
        loop = asyncio.get_running_loop()
        interval = min(FLUSH_LIMIT_SECONDS, len(self.viewers) * SECONDS_PER_VIEWER)
        wait = self._flushed_at + interval - loop.time()
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
        text = "\n".join(self._pending)
        self._pending.clear()
        self._pending_characters = 0
        for piece in pieces(text):
            self._publish(piece)
        self._flushed_at = asyncio.get_running_loop().time()

    def _publish(self, text: str) -> None:
        seq = self.scrollback.append(text, limit_bytes=self._limit_bytes())
        plain = self.scrollback.frame(seq, compressed=False)
        compressed: bytes | None = None
        for viewer in tuple(self.viewers):
            if not viewer.may_inflate:
                viewer.published(seq, plain)
                continue
            if compressed is None:
                compressed = self.scrollback.frame(seq, compressed=True)
            viewer.published(seq, compressed)

    def _gather_replay(self, seconds: float) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._flush_timer = asyncio.get_running_loop().call_later(seconds, self._end_replay)

    def _end_replay(self) -> None:
        """Also of what was gathered otherwise: nothing of it waits for a connection that has ended."""
        seen, self._seen = self._seen, None
        if seen is not None and self._pending:
            fresh = without_replay(seen, "\n".join(self._pending))
            self._pending = [fresh] if fresh else []
        self._flush()

    # -- the agent ---------------------------------------------------------------------------------------------------

    def retry_now(self) -> None:
        """The agent was seen alive: no need to wait for the backoff."""
        self._retry_now.set()

    def move(self, endpoint: AgentEndpoint) -> None:
        """The instance's agent lives elsewhere from now on."""
        self.endpoint = endpoint
        if self._upstream is not None:
            self._upstream.close(CloseCode.NORMAL, "moved")
        self._retry_now.set()

    def check_upstream(self) -> None:
        """Ping; give up a connection that says nothing to three in a row."""
        if self._upstream is None:
            return
        if self._upstream.pings >= 3:
            self._upstream.abort()
        else:
            self._upstream.ping()

    async def close(self) -> None:
        self._keeper.cancel()
        await asyncio.wait((self._keeper,))

    async def _keep_connected(self) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        well_at = self._now()
        try:
            while True:
                reason, opened_at = await self._connect_once()
                if opened_at is not None:
                    well_at = self._now()
                    if well_at - opened_at >= STEADY_SECONDS:
                        backoff = FIRST_BACKOFF_SECONDS
                if self._now() - well_at >= GIVE_UP_SECONDS:
                    self.close_viewers(CloseCode.AGENT_UNAVAILABLE, "the agent's console cannot be reached")
                wait = backoff * (0.75 + random.random() / 2)  # noqa: S311 - spreads reconnections, no secret
                self._tell_all({"reason": reason, "retryInSeconds": round(wait, 1)})
                await self._wait(wait)
                backoff = min(2 * backoff, BACKOFF_LIMIT_SECONDS)
        finally:
            self._end_replay()
            if self._flush_timer is not None:
                self._flush_timer.cancel()
            if self._upstream is not None:
                self._upstream.close(CloseCode.GOING_AWAY, "nobody is watching")

    async def _connect_once(self) -> tuple[str, float | None]:
        """Why the connection ended or failed, and when it was opened."""
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[int] = loop.create_future()
        upstream = Upstream(self._take, lost)
        if self.scrollback.next_seq:
            self._seen = self.scrollback.last_lines(REMEMBERED_LINES)
        try:
            await self._dial(self.endpoint, lambda: upstream)
        except AgentError as error:
            self._seen = None
            logger.info("a console cannot be reached", extra={"instance": self.instance_id, "why": error.message})
            return error.stable_code, None
        opened_at = self._now()
        if self._seen is not None:
            self._gather_replay(REPLAY_SECONDS if self._pending else REPLAY_BEGINS_SECONDS)
        self._upstream = upstream
        self._retry_now.clear()
        self._tell_all(None)
        try:
            await lost
        finally:
            self._end_replay()
            if not lost.done() or lost.cancelled():
                upstream.close(CloseCode.GOING_AWAY, "nobody is watching")
            self._upstream = None
        return "console_closed", opened_at

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._retry_now.wait()
        except TimeoutError:
            return
        self._retry_now.clear()
