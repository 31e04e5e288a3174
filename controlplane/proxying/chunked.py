"""The chunked transfer coding of a request (RFC 9112 section 7.1), read strictly and in constant memory. Pure.

Strictly, since whoever reads a body's end elsewhere than the next hop does lets a request be smuggled in between.
"""

from __future__ import annotations

from controlplane.errors import MalformedRequest

LINE_LIMIT_BYTES = 4 << 10
"""Of a chunk's size with its extensions, and of one trailer field."""

TRAILER_LIMIT_BYTES = 16 << 10
_SIZE_DIGITS = 15
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ChunkedReader:
    """Feed it what arrives; it gives the payload. `is_complete` is true behind the last chunk and its trailers."""

    def __init__(self) -> None:
        self.is_complete = False
        self._left = 0
        self._line = bytearray()
        self._expects = "size"
        self._trailer_bytes = 0

    def feed(self, data: memoryview) -> bytes:
        """The payload in `data`; what is behind the body is left unread. Raises MalformedRequest."""
        parts: list[memoryview] = []
        at = 0
        while at < len(data) and not self.is_complete:
            if self._left:
                taken = min(self._left, len(data) - at)
                parts.append(data[at : at + taken])
                at += taken
                self._left -= taken
                if not self._left:
                    self._expects = "end"
            else:
                at = self._take_line(data, at)
        return b"".join(parts)

    def _take_line(self, data: memoryview, at: int) -> int:
        end = bytes(data[at : at + LINE_LIMIT_BYTES + 2]).find(b"\n")
        stop = len(data) if end < 0 else at + end + 1
        self._line += data[at : min(stop, at + LINE_LIMIT_BYTES + 2)]
        if len(self._line) > LINE_LIMIT_BYTES:
            raise _malformed("a line of it is too long")
        if end < 0:
            return stop
        line, self._line = bytes(self._line), bytearray()
        if not line.endswith(b"\r\n"):
            raise _malformed("a line of it does not end with CR LF")
        self._read_line(line[:-2])
        return stop

    def _read_line(self, line: bytes) -> None:
        if b"\r" in line or b"\0" in line:
            raise _malformed("a line of it holds control characters")
        if self._expects == "end":
            if line:
                raise _malformed("a chunk is longer than its size says")
            self._expects = "size"
        elif self._expects == "size":
            self._left = _parse_size(line)
            if not self._left:
                self._expects = "trailer"
        elif not line:
            self.is_complete = True
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > TRAILER_LIMIT_BYTES or line[:1] in (b" ", b"\t") or b":" not in line:
                raise _malformed("its trailers cannot be read")


def _parse_size(line: bytes) -> int:
    digits = line.partition(b";")[0]
    if not digits or len(digits) > _SIZE_DIGITS or not _HEX.issuperset(digits):
        raise _malformed("a chunk's size is not a hexadecimal number")
    return int(digits, 16)


def _malformed(why: str) -> MalformedRequest:
    return MalformedRequest(f"The chunked body cannot be read: {why}.", code="chunked_invalid")
