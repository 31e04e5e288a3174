"""The stream under Tornado's HTTP parser: keeps each request's head as it came, and does not wait for ever.

Tornado ends what it cannot read, and what is late, without a word or with a bare status line. Here the client is told
why, where nothing was answered yet. It hangs on the public methods of a stream, since Tornado's connection has no place
for it: `read_until_regex` begins a head, `read_bytes` and `read_until` go on with a body, `write` answers.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.client import responses
from typing import Any, cast

import orjson
from tornado.iostream import IOStream, UnsatisfiableReadError

from controlplane.errors import ControlPlaneError, MalformedRequest, RequestTimeout
from handlers.parting import part

_TORNADO_REFUSES = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""What HTTP1Connection writes, and then closes, wherever it cannot read on."""

_CONTINUE = b"HTTP/1.1 100 "
_LOOKS = 4
"""At a client that keeps still, until it is given up: that may be so much of its time later than said."""

LastWords = Callable[[ControlPlaneError], bytes]
"""Ends a request that is not read to its end. Gives its answer, the last one on the connection."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """`head_seconds` until a whole head is there, `idle_seconds` without a byte of a body, or of an answer taken."""

    head_seconds: float
    idle_seconds: float


class StrictStream(IOStream):
    """`head` is that of the latest request. Whoever serves it sets the rest, once it is there; the next head resets it.

    `body_seconds`: for the whole of the body, beside the limit of a body that does not move.
    """

    head = b""
    last_words: LastWords | None = None
    body_seconds: float | None = None

    def __init__(self, connection: socket.socket, limits: ClientLimits, *, max_buffer_size: int) -> None:
        super().__init__(connection, max_buffer_size=max_buffer_size)
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_in_head = False
        self._is_in_body = False
        self._is_answered = False
        self._began_at = 0.0
        self._moved_at = 0.0
        self._untaken_bytes = 0

    # -- as Tornado calls it -------------------------------------------------------------------------------------------

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        self._is_in_head = True
        self._is_in_body = self._is_answered = False
        self.last_words = self.body_seconds = None
        reading = super().read_until_regex(regex, max_bytes)
        assert isinstance(reading, asyncio.Future)
        if reading.done():
            self._keep_head(reading)
        else:
            reading.add_done_callback(self._keep_head)  # called before whoever awaits it
            self._began_at = self._loop.time()
            self._look_within(self._limits.head_seconds)
        return reading

    def _keep_head(self, reading: asyncio.Future[bytes]) -> None:
        if not reading.cancelled() and reading.exception() is None:
            self.head = reading.result()
            self._is_in_head = False

    def read_bytes(self, num_bytes: int, partial: bool = False) -> Awaitable[bytes]:
        self._begin_body()
        return self._waited_for(super().read_bytes(num_bytes, partial))

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        self._begin_body()
        return self._waited_for(super().read_until(delimiter, max_bytes))

    def _begin_body(self) -> None:
        if not self._is_in_body:
            self._is_in_body = True
            self._began_at = self._loop.time()

    def _waited_for(self, reading: Awaitable[bytes]) -> Awaitable[bytes]:
        if not cast("asyncio.Future[bytes]", reading).done():
            self._moved_at = self._loop.time()
            self._look_within(self._patience())
        return reading

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        if data == _TORNADO_REFUSES:
            self._tell(self._why_unreadable())
            return super().write(b"")  # done when the answer that was begun, if any, has gone out
        if not self._is_answered and data[: len(_CONTINUE)] != _CONTINUE:
            self._is_answered = True
        was_writing = self.writing()
        written = super().write(data)
        if self.writing() and not was_writing:
            self._moved_at = self._loop.time()
            self._untaken_bytes = _untaken_bytes(self.socket)
            self._look_within(self._patience())
        return written

    def write_to_fd(self, data: memoryview) -> int:
        sent = super().write_to_fd(data)
        self._moved_at = self._loop.time()
        return sent

    def close(self, exc_info: Any = False) -> None:
        if not self.closed():
            if isinstance(exc_info, UnsatisfiableReadError):
                self._tell(_chunks_unreadable("a line of it is too long") if self._is_in_body else _HEAD_TOO_LARGE)
            self.let_go()
        super().close(exc_info)

    def let_go(self) -> None:
        """Of the timer and of the request: the stream ends, or its socket goes to somebody else."""
        self.last_words = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- in time -------------------------------------------------------------------------------------------------------

    def _look_within(self, seconds: float) -> None:
        """One timer, which stays while it is early enough: most reads and writes cost none."""
        if self._timer is not None:
            if self._timer.when() <= self._loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def _patience(self) -> float:
        """Until the next look at a body or an answer."""
        seconds = self._limits.idle_seconds / _LOOKS
        if not self._is_reading_body or self.body_seconds is None:
            return seconds
        return max(0.0, min(seconds, self._began_at + self.body_seconds - self._loop.time()))

    @property
    def _is_reading_body(self) -> bool:
        return self._is_in_body and self.reading()

    def _look(self) -> None:
        self._timer = None
        if self._is_in_head:
            self._look_at_head()
        elif self.writing() or self._is_reading_body:
            self._look_at_rest()

    def _look_at_head(self) -> None:
        left = self._began_at + self._limits.head_seconds - self._loop.time()
        if left > 0:
            self._look_within(left)
            return
        if self._read_buffer_size:  # else nothing was asked
            self._tell(_HEAD_LATE)
        self.close()

    def _look_at_rest(self) -> None:
        moment = self._loop.time()
        if self.writing():
            before, self._untaken_bytes = self._untaken_bytes, _untaken_bytes(self.socket)
            if self._untaken_bytes < before:
                self._moved_at = moment
        idle_seconds, body_seconds = self._limits.idle_seconds, self.body_seconds
        if moment - self._moved_at >= idle_seconds:
            self._tell(RequestTimeout(f"Nothing of the request's body arrived for {idle_seconds:.3g} s."))
            self.close()
        elif self._is_reading_body and body_seconds is not None and moment - self._began_at >= body_seconds:
            self._tell(RequestTimeout(f"The request's body did not arrive within {body_seconds:.3g} s."))
            self.close()
        else:
            self._look_within(self._patience())

    # -- last words ----------------------------------------------------------------------------------------------------

    def _why_unreadable(self) -> ControlPlaneError | bytes:
        if self.last_words is None:
            return _HEAD_UNREADABLE
        if self._is_in_body:
            return _chunks_unreadable("a chunk's size, or what stands behind a chunk, is none")
        return MalformedRequest("The body's framing is ambiguous or unknown.", code="framing_invalid")

    def _tell(self, why: ControlPlaneError | bytes) -> None:
        """The last answer on the connection, unless one was begun. Bytes are for a head that nobody serves yet."""
        if self._is_answered:
            return
        self._is_answered = True
        last_words, self.last_words = self.last_words, None
        if isinstance(why, ControlPlaneError):
            assert last_words is not None
            why = last_words(why)
        part(self.socket.dup(), why)


def _chunks_unreadable(why: str) -> MalformedRequest:
    return MalformedRequest(f"The chunked body cannot be read: {why}.", code="chunked_invalid")


def _untaken_bytes(connection: socket.socket) -> int:
    """What the kernel still holds for the client (SIOCOUTQ, tcp(7)).

    A socket says that it takes more only when a third of its buffer is free: a slow client may need minutes for that.
    """
    (count,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def _refusal(status: int, code: str, message: str) -> bytes:
    """Of a head that could not be read to its end, so that it has no request id."""
    body = orjson.dumps({"error": message, "code": code, "details": None, "requestId": None})
    head = (
        f"HTTP/1.1 {status} {responses[status]}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


_HEAD_UNREADABLE = _refusal(400, "malformed_request", "The request's head is not that of an HTTP/1.1 request.")
_HEAD_LATE = _refusal(408, "request_timeout", "The request's head did not arrive in time.")
_HEAD_TOO_LARGE = _refusal(431, "headers_too_large", "The request's headers are too large.")
