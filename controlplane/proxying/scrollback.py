"""The latest output of one console as numbered WebSocket frames, built once for all viewers. Bounded in bytes. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import orjson

from controlplane.proxying.frames import TEXT, build_frame, deflate

OUTPUT_LIMIT_CHARACTERS = 64 << 10
"""Of one output event: what a frame costs to encode, and to compress, stays under a millisecond."""

COMPRESS_FROM_BYTES = 512
"""Below this a compressed frame saves less than it costs."""


@dataclass(slots=True)
class _Output:
    """One `output` event as a frame, and the same compressed once somebody wants it so."""

    payload: bytes
    frame: bytes
    compressed: bytes | None = None


class Scrollback:
    """`oldest_seq` is the first number that is still held, `next_seq` the one that the next output gets."""

    def __init__(self) -> None:
        self._outputs: deque[_Output] = deque()
        self._held_bytes = 0
        self.next_seq = 0

    @property
    def oldest_seq(self) -> int:
        return self.next_seq - len(self._outputs)

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def append(self, text: str, *, limit_bytes: int) -> int:
        """The new output's number. What is beyond the limit falls out at the other end."""
        payload = b'{"event":"output","seq":%d,"data":%b}' % (self.next_seq, orjson.dumps(text))
        self._outputs.append(_Output(payload, build_frame(TEXT, payload)))
        self._held_bytes += 2 * len(payload)
        self.next_seq += 1
        while self._held_bytes > limit_bytes and len(self._outputs) > 1:
            self._held_bytes -= 2 * len(self._outputs.popleft().payload)
        return self.next_seq - 1

    def frame(self, seq: int, *, compressed: bool) -> bytes:
        """Of an output that is still held."""
        output = self._outputs[seq - self.oldest_seq]
        if not compressed or len(output.payload) < COMPRESS_FROM_BYTES:
            return output.frame
        if output.compressed is None:
            output.compressed = build_frame(TEXT, deflate(output.payload), is_compressed=True)
        return output.compressed

    def last_lines(self, count: int) -> list[str]:
        """The latest lines, oldest first: at most `count`."""
        lines: list[str] = []
        for output in reversed(self._outputs):
            lines = orjson.loads(output.payload)["data"].split("\n") + lines
            if len(lines) >= count:
                break
        return lines[-count:]


def pieces(text: str) -> list[str]:
    """Cut at line ends into texts of OUTPUT_LIMIT_CHARACTERS at most; a longer line is cut anywhere."""
    found: list[str] = []
    at = 0
    while len(text) - at > OUTPUT_LIMIT_CHARACTERS:
        end = text.rfind("\n", at, at + OUTPUT_LIMIT_CHARACTERS)
        if end <= at:
            found.append(text[at : at + OUTPUT_LIMIT_CHARACTERS])
            at += OUTPUT_LIMIT_CHARACTERS
        else:
            found.append(text[at:end])
            at = end + 1
    found.append(text[at:])
    return found


def without_replay(seen: list[str], replay: str) -> str:
    """What of an agent's replay is new to somebody who has `seen` these lines last: all of it where they do not occur.

    Agents begin a stream with their own scrollback, so that after a reconnection most of it has been shown.
    """
    lines = replay.split("\n")
    width = len(seen)
    if not width:
        return replay
    for end in range(len(lines), width - 1, -1):
        if lines[end - 1] == seen[-1] and lines[end - width : end] == seen:
            return "\n".join(lines[end:])
    return replay
