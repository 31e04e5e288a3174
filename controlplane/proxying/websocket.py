"""One WebSocket connection (RFC 6455) on an asyncio transport, as server or as client.

Made for thousands of connections: no task, no queue and no buffer of its own while it is idle. What the messages mean
is decided by subclasses; the handshake has been done by whoever made the connection.
"""

from __future__ import annotations

import asyncio
import os
from typing import cast

from controlplane.proxying.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    CloseCode,
    Frame,
    ProtocolViolation,
    build_frame,
    close_payload,
    inflate,
    parse_close,
    parse_frame,
)

CLOSE_SECONDS = 5.0
"""For the peer to answer a close frame and take what is still in the socket; then the connection is cut."""

WRITE_HIGH_BYTES = 64 << 10
FRAMES_PER_TURN = 250
"""Taken before others get their turn, a millisecond's worth: one read may hold tens of thousands of empty frames."""

_PING_FRAME = build_frame(PING, b"")


class WebSocket(asyncio.Protocol):
    """Subclasses define `message_received` and may define `opened`, `writable` and `closed`.

    `message_limit_bytes` bounds a message, fragmented and compressed or not. `is_congested` is true while the peer does
    not take what was written: `writable` is called when it does again.
    """

    __slots__ = (
        "_buffer", "_close_timer", "_closed_with", "_fragments", "_is_client", "_is_message_compressed",
        "_is_turn_over", "_message_bytes", "_message_opcode", "_said_close", "is_congested", "may_inflate",
        "message_limit_bytes", "pings", "transport",
    )  # fmt: skip

    def __init__(self, *, is_client: bool, message_limit_bytes: int, may_inflate: bool = False) -> None:
        self._is_client = is_client
        self.message_limit_bytes = message_limit_bytes
        self.may_inflate = may_inflate
        self.transport: asyncio.Transport | None = None
        self.is_congested = False
        self.pings = 0  # sent since something arrived
        self._buffer: bytearray | None = None
        self._fragments: list[bytes] | None = None
        self._message_opcode = 0
        self._message_bytes = 0
        self._is_message_compressed = False
        self._is_turn_over = False
        self._said_close = False
        self._closed_with: int | None = None
        self._close_timer: asyncio.TimerHandle | None = None

    # -- for subclasses ----------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The transport is there."""

    def message_received(self, message: bytes, *, is_text: bool) -> None:
        """A whole message. Text is UTF-8 as the peer claims; whoever decodes it finds out."""
        raise NotImplementedError

    def writable(self) -> None:
        """The peer takes bytes again."""

    def closed(self, code: int) -> None:
        """The connection is gone; `code` is the peer's close code, or 1006."""

    # -- sending -----------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self._said_close and not self.transport.is_closing()

    def send_text(self, payload: bytes) -> None:
        self.send_frame(build_frame(TEXT, payload, key=self._key()))

    def send_frame(self, frame: bytes) -> None:
        """Bytes of a whole frame that was built before; dropped when the connection is closing."""
        if self.is_open:
            cast(asyncio.Transport, self.transport).write(frame)

    def ping(self) -> None:
        """Nothing while the peer is congested: the ping would only wait behind what it does not take."""
        if not self.is_congested:
            self.pings += 1
            self.send_frame(_PING_FRAME if not self._is_client else build_frame(PING, b"", key=self._key()))

    def close(self, code: int, reason: str = "") -> None:
        """Say so, and cut the connection when the peer does not end it in time."""
        if not self.is_open:
            return
        self._say_close(close_payload(code, reason))
        self._end_later()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _key(self) -> bytes | None:
        return os.urandom(4) if self._is_client else None

    def _say_close(self, payload: bytes) -> None:
        if self.is_open:
            self.send_frame(build_frame(CLOSE, payload, key=self._key()))
        self._said_close = True

    def _end_later(self) -> None:
        if self._close_timer is None:
            self._close_timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._buffer = self._fragments = None
        self.closed(CloseCode.ABNORMAL if self._closed_with is None else self._closed_with)

    def pause_writing(self) -> None:
        self.is_congested = True

    def resume_writing(self) -> None:
        self.is_congested = False
        self.writable()

    def data_received(self, data: bytes) -> None:
        self.pings = 0
        if self._closed_with is not None:
            return
        source: bytes | bytearray = data
        if self._buffer is not None:
            self._buffer += data
            source = self._buffer
        if not self._is_turn_over:
            self._take_turn(source)

    def _take_turn(self, source: bytes | bytearray) -> None:
        try:
            at = self._take_frames(source)
        except ProtocolViolation as violation:
            self._buffer = None
            self._closed_with = violation.code
            self._say_close(close_payload(violation.code, violation.reason))
            self._end_later()
            return
        self._keep(source, at)
        if self._is_turn_over and self.transport is not None:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_next_turn)

    def _take_next_turn(self) -> None:
        self._is_turn_over = False
        if self._buffer is not None and self._closed_with is None:
            self._take_turn(self._buffer)
        if not self._is_turn_over and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _keep(self, source: bytes | bytearray, at: int) -> None:
        """Hold on to the incomplete rest: at most one frame of the limit's size."""
        if at == len(source):
            self._buffer = None
        elif self._buffer is None:
            self._buffer = bytearray(source[at:])
        elif at:
            del self._buffer[:at]

    def _take_frames(self, source: bytes | bytearray) -> int:
        at = taken = 0
        while self._closed_with is None:
            if taken == FRAMES_PER_TURN:
                self._is_turn_over = True
                return at
            taken += 1
            frame = parse_frame(source, at, masked=not self._is_client, limit_bytes=self.message_limit_bytes)
            if frame is None:
                return at
            at = frame.end
            if frame.is_control:
                self._take_control(frame)
            else:
                self._take_data(frame)
        return len(source)

    def _take_control(self, frame: Frame) -> None:
        if frame.opcode == PING:
            if not self.is_congested:  # else answers would pile up behind what the peer does not read
                self.send_frame(build_frame(PONG, frame.payload, key=self._key()))
        elif frame.opcode == CLOSE:
            self._closed_with = parse_close(frame.payload)
            self._say_close(frame.payload)
            if self._is_client:
                self._end_later()  # the server is to close the connection first (section 7.1.1)
            elif self.transport is not None:
                self.transport.close()
                self._end_later()

    def _take_data(self, frame: Frame) -> None:
        if (frame.opcode == CONTINUATION) != (self._fragments is not None):
            raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "a fragment out of its place")
        if frame.is_compressed and (frame.opcode == CONTINUATION or not self.may_inflate):
            raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "compression that was not agreed on")
        if frame.is_final and self._fragments is None:
            self._deliver(frame.opcode, frame.payload, is_compressed=frame.is_compressed)
            return
        if self._fragments is None:
            self._fragments = []
            self._message_bytes = 0
            self._message_opcode = frame.opcode
            self._is_message_compressed = frame.is_compressed
        self._message_bytes += len(frame.payload) + 1  # the one bounds the number of empty fragments
        if self._message_bytes > self.message_limit_bytes:
            raise ProtocolViolation(CloseCode.TOO_BIG, f"a message may have {self.message_limit_bytes} bytes")
        self._fragments.append(frame.payload)
        if frame.is_final:
            whole, self._fragments = b"".join(self._fragments), None
            self._deliver(self._message_opcode, whole, is_compressed=self._is_message_compressed)

    def _deliver(self, opcode: int, payload: bytes, *, is_compressed: bool) -> None:
        if self._said_close:
            return
        if is_compressed:
            payload = inflate(payload, self.message_limit_bytes)
        self.message_received(payload, is_text=opcode != BINARY)
