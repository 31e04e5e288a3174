"""One viewer of a console: its messages in, its place in the scrollback, its limits.

A viewer holds no queue of its own: what it has not taken yet stays in the scrollback that all share, and what falls out
of there before it was taken is declared as a `gap`. Who may view is decided by the desk that the viewer reports to.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import orjson

from controlplane.auth.live import Watch
from controlplane.models import InstanceKind, Principal
from controlplane.proxying.frames import CloseCode
from controlplane.proxying.scrollback import Scrollback
from controlplane.proxying.websocket import WebSocket

MESSAGE_LIMIT_BYTES = 16 << 10
COMMAND_LIMIT_CHARACTERS = 4096
MESSAGES_PER_SECOND = 20.0
MESSAGE_BURST = 40.0
COMMANDS_PER_SECOND = 5.0
COMMAND_BURST = 20.0
WAITING_MESSAGES = 8
"""Sent while the first `auth` is being looked at."""

RESUME_SECONDS = 0.15
"""How long the replay of a new viewer's scrollback waits for a `resume`."""

BURST_OUTPUTS = 16
"""Sent in one go before others get their turn."""


class Allowance:
    """A token bucket. Times are of the monotonic clock."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Feed(Protocol):
    """What a viewer views: one console's scrollback, and the way to its process."""

    instance_id: str
    stream_id: str
    scrollback: Scrollback

    def send_line(self, line: str) -> bool:
        """False when the agent's console is not connected."""

    def leave(self, viewer: Viewer) -> None: ...


class Desk(Protocol):
    """Whom a viewer reports to."""

    def now(self) -> float:
        """Of the monotonic clock."""

    def admit(self, viewer: Viewer, token: str) -> None:
        """Look at a token; ends in `admitted`, `renewed` or `close`."""

    def commanded(self, viewer: Viewer) -> None:
        """A command was passed on."""

    def missed(self, outputs: int) -> None:
        """So many outputs were declared as a gap."""

    def left(self, viewer: Viewer) -> None:
        """The connection is gone."""


class Viewer(WebSocket):
    __slots__ = (
        "_commands", "_messages", "_replay_timer", "_waiting", "address", "congested_since", "cursor", "desk",
        "expires_at", "feed", "is_admitting", "is_flowing", "is_warned", "kind", "opened_at", "pinged_at", "principal",
        "reference", "request_id", "watch",
    )  # fmt: skip

    def __init__(
        self, desk: Desk, kind: InstanceKind, reference: str, *, request_id: str, address: str, compressed: bool
    ) -> None:
        super().__init__(is_client=False, message_limit_bytes=MESSAGE_LIMIT_BYTES, may_inflate=compressed)
        self.desk = desk
        self.kind = kind
        self.reference = reference
        self.request_id = request_id
        self.address = address
        self.feed: Feed | None = None
        self.principal: Principal | None = None
        self.watch: Watch | None = None
        self.expires_at = 0.0
        self.is_warned = False
        self.is_admitting = False
        self.is_flowing = False
        self.cursor = 0
        self.opened_at = self.pinged_at = desk.now()
        self.congested_since: float | None = None
        self._messages: Allowance | None = None
        self._commands: Allowance | None = None
        self._replay_timer: asyncio.TimerHandle | None = None
        self._waiting: list[dict[str, Any]] | None = None

    # -- what it is told ---------------------------------------------------------------------------------------------

    def tell(self, event: str, **fields: Any) -> None:
        self.send_text(orjson.dumps({"event": event, **fields}))

    def admitted(self, feed: Feed) -> None:
        """Say hello, and begin with the scrollback unless a `resume` says where to go on."""
        self.feed = feed
        self.is_admitting = False
        scrollback = feed.scrollback
        self.cursor = scrollback.oldest_seq
        self.tell("hello", streamId=feed.stream_id, oldestSeq=scrollback.oldest_seq, nextSeq=scrollback.next_seq)
        if scrollback.oldest_seq == scrollback.next_seq:
            self.is_flowing = True
        else:
            self._replay_timer = asyncio.get_running_loop().call_later(RESUME_SECONDS, self._flow)
        waiting, self._waiting = self._waiting, None
        for message in waiting or ():
            self._dispatch(message)

    def renewed(self) -> None:
        self.is_admitting = False
        self.is_warned = False

    # -- output ------------------------------------------------------------------------------------------------------

    def published(self, seq: int, frame: bytes) -> None:
        """The newest output, for a viewer that has all before it; any other fetches it when its turn comes."""
        if self.cursor == seq and self.is_flowing and not self.is_congested:
            self.send_frame(frame)
            self.cursor = seq + 1

    def pump(self) -> None:
        """Send what is due, a burst at a time, as long as the peer takes it."""
        feed = self.feed
        if feed is None or not self.is_flowing:
            return
        scrollback = feed.scrollback
        for _ in range(BURST_OUTPUTS):
            if self.is_congested or not self.is_open or self.cursor >= scrollback.next_seq:
                return
            if self.cursor < scrollback.oldest_seq:
                self._declare_gap(scrollback.oldest_seq, "too_slow")
            self.send_frame(scrollback.frame(self.cursor, compressed=self.may_inflate))
            self.cursor += 1
        asyncio.get_running_loop().call_soon(self.pump)

    def _declare_gap(self, oldest: int, reason: str) -> None:
        self.desk.missed(oldest - self.cursor)
        self.tell("gap", **{"from": self.cursor, "to": oldest - 1, "reason": reason})
        self.cursor = oldest

    def _flow(self) -> None:
        if self._replay_timer is not None:
            self._replay_timer.cancel()
            self._replay_timer = None
        self.is_flowing = True
        self.pump()

    # -- WebSocket ---------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self.congested_since = self.desk.now()

    def writable(self) -> None:
        self.congested_since = None
        self.pump()

    def closed(self, code: int) -> None:
        if self._replay_timer is not None:
            self._replay_timer.cancel()
        if self.feed is not None:
            self.feed.leave(self)
            self.feed = None
        self.desk.left(self)

    def message_received(self, message: bytes, *, is_text: bool) -> None:
        if self._messages is None:
            self._messages = Allowance(MESSAGES_PER_SECOND, MESSAGE_BURST)
        if not self._messages.take(self.desk.now()):
            self.close(CloseCode.TOO_MANY, "too many messages")
            return
        document = _parse(message) if is_text else None
        if document is None:
            self._complain("not_an_event", "Every message is a JSON object with its name in `event`.")
            return
        if self.principal is None and document["event"] != "auth":
            self._wait_or_refuse(document)
            return
        self._dispatch(document)

    def _wait_or_refuse(self, document: dict[str, Any]) -> None:
        if not self.is_admitting:
            self.close(CloseCode.NOT_AUTHENTICATED, "the first message is auth")
            return
        if self._waiting is None:
            self._waiting = []
        if len(self._waiting) >= WAITING_MESSAGES:
            self.close(CloseCode.TOO_MANY, "too many messages before the authentication")
            return
        self._waiting.append(document)

    def _dispatch(self, document: dict[str, Any]) -> None:
        event = document["event"]
        if event == "auth":
            self._auth(document)
        elif event == "command":
            self._command(document)
        elif event == "resume":
            self._resume(document)
        else:
            self._complain("unknown_event", "Known events are auth, command and resume.")

    def _complain(self, code: str, sentence: str) -> None:
        self.tell("error", code=code, error=sentence)

    # -- events ------------------------------------------------------------------------------------------------------

    def _auth(self, document: dict[str, Any]) -> None:
        token = document.get("token")
        if not isinstance(token, str) or not token:
            self._complain("validation_failed", "`token` must be a string.")
        elif self.is_admitting:
            self._complain("auth_in_progress", "A token is being looked at.")
        else:
            self.is_admitting = True
            self.desk.admit(self, token)

    def _command(self, document: dict[str, Any]) -> None:
        command_id = document.get("id")
        if not isinstance(command_id, str | int) or isinstance(command_id, bool) or len(str(command_id)) > 64:
            self._complain("validation_failed", "`id` must be a string or a number of at most 64 characters.")
            return
        code = self._pass_on(document.get("command"))
        self.tell("commandAck", id=command_id, accepted=code is None, code=code)

    def _pass_on(self, command: object) -> str | None:
        """None, or the code of why not."""
        if not isinstance(command, str) or not command or len(command) > COMMAND_LIMIT_CHARACTERS:
            return "validation_failed"
        if not command.isprintable():
            return "not_one_line"
        if self._commands is None:
            self._commands = Allowance(COMMANDS_PER_SECOND, COMMAND_BURST)
        if not self._commands.take(self.desk.now()):
            return "rate_limited"
        if self.feed is None or not self.feed.send_line(command):
            return "agent_unavailable"
        self.desk.commanded(self)
        return None

    def _resume(self, document: dict[str, Any]) -> None:
        stream_id, after = document.get("streamId"), document.get("afterSeq")
        if not isinstance(stream_id, str) or not isinstance(after, int) or isinstance(after, bool) or after < -1:
            self._complain("validation_failed", "`streamId` must be a string, `afterSeq` a number from -1 on.")
            return
        feed = self.feed
        if feed is None:
            return
        if stream_id != feed.stream_id:
            # Numbers of another stream mean nothing here: what was missed cannot be told, so it ends at an unknown.
            self.tell("gap", **{"from": after + 1, "to": None, "reason": "stream_changed"})
        elif after + 1 < feed.scrollback.oldest_seq:
            self.cursor = after + 1
            self._declare_gap(feed.scrollback.oldest_seq, "expired")
        else:
            self.cursor = min(after + 1, feed.scrollback.next_seq)
        self._flow()


def _parse(message: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and isinstance(document.get("event"), str) else None
