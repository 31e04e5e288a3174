"""The scrollback: numbers without holes, a bound in bytes, and what an agent's replay adds."""

from __future__ import annotations

import orjson
import pytest

from controlplane.proxying.frames import inflate, parse_frame
from controlplane.proxying.scrollback import OUTPUT_LIMIT_CHARACTERS, Scrollback, pieces, without_replay


def event_of(frame: bytes) -> dict[str, object]:
    parsed = parse_frame(frame, 0, masked=False, limit_bytes=1 << 20)
    assert parsed is not None
    payload = inflate(parsed.payload, 1 << 20) if parsed.is_compressed else parsed.payload
    event: dict[str, object] = orjson.loads(payload)
    return event


def test_outputs_are_numbered_and_the_oldest_fall_out_at_the_bound() -> None:
    scrollback = Scrollback()
    for number in range(100):
        assert scrollback.append("x" * 1000, limit_bytes=20_000) == number
    assert scrollback.held_bytes <= 20_000
    assert scrollback.next_seq == 100
    assert 85 < scrollback.oldest_seq < 100
    for seq in range(scrollback.oldest_seq, 100):
        assert event_of(scrollback.frame(seq, compressed=False)) == {"event": "output", "seq": seq, "data": "x" * 1000}


def test_a_lower_limit_shrinks_it_at_the_next_output_but_for_the_latest() -> None:
    scrollback = Scrollback()
    for _ in range(10):
        scrollback.append("x" * 1000, limit_bytes=1 << 20)
    scrollback.append("y" * 1000, limit_bytes=1)
    assert (scrollback.oldest_seq, scrollback.next_seq) == (10, 11)


def test_a_frame_is_compressed_once_and_only_where_that_pays() -> None:
    scrollback = Scrollback()
    scrollback.append("short", limit_bytes=1 << 20)
    scrollback.append("long " * 1000, limit_bytes=1 << 20)
    assert scrollback.frame(0, compressed=True) is scrollback.frame(0, compressed=False)
    compressed = scrollback.frame(1, compressed=True)
    assert len(compressed) < len(scrollback.frame(1, compressed=False)) / 10
    assert scrollback.frame(1, compressed=True) is compressed
    assert event_of(compressed) == event_of(scrollback.frame(1, compressed=False))


def test_the_latest_lines_come_from_as_many_outputs_as_it_takes() -> None:
    scrollback = Scrollback()
    for text in ("one\ntwo", "three", "four\nfive"):
        scrollback.append(text, limit_bytes=1 << 20)
    assert scrollback.last_lines(4) == ["two", "three", "four", "five"]
    assert scrollback.last_lines(20) == ["one", "two", "three", "four", "five"]


def test_a_long_text_is_cut_at_line_ends_and_a_long_line_anywhere() -> None:
    text = "\n".join(["a" * 1000] * 200)
    cut = pieces(text)
    assert all(len(piece) <= OUTPUT_LIMIT_CHARACTERS for piece in cut)
    assert "\n".join(cut) == text
    line = "b" * (3 * OUTPUT_LIMIT_CHARACTERS + 1)
    assert [len(piece) for piece in pieces(line)] == [OUTPUT_LIMIT_CHARACTERS] * 3 + [1]
    assert pieces("") == [""]


@pytest.mark.parametrize(
    ("seen", "replay", "fresh"),
    [
        (["b", "c"], "a\nb\nc\nd", "d"),
        (["b", "c"], "a\nb\nc", ""),
        (["b", "c"], "b\nc\nx\nb\nc\nd", "d"),  # the latest occurrence
        (["b", "c"], "x\ny", "x\ny"),  # another process's output
        ([], "a\nb", "a\nb"),
    ],
)
def test_of_a_replay_only_what_was_not_seen_is_new(seen: list[str], replay: str, fresh: str) -> None:
    assert without_replay(seen, replay) == fresh
