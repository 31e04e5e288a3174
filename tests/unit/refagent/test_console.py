from __future__ import annotations

import asyncio

import pytest

from controlplane.refagent.console import FRAME_LIMIT, LINE_LIMIT, SCROLLBACK_LIMIT, Console, LineAssembler, frames


def assemble(*chunks: bytes) -> list[str]:
    assembler = LineAssembler()
    lines = [line for chunk in chunks for line in assembler.feed(chunk)]
    return lines + assembler.flush()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ((), []),
        ((b"one\n",), ["one"]),
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"o", b"n", b"e\nt", b"wo\n"), ["one", "two"]),
        ((b"\n\n",), ["", ""]),
        ((b"dos\r\nunix\nlast\r\n",), ["dos", "unix", "last"]),
        ((b"split\r", b"\nnext\n"), ["split", "next"]),
        ((b"unfinished",), ["unfinished"]),
        (("caf\u00e9\n".encode()[:4], "caf\u00e9\n".encode()[4:]), ["caf\u00e9"]),
        ((b"\xff\xfe\n",), ["\ufffd\ufffd"]),
    ],
)
def test_bytes_become_lines_however_they_are_cut(chunks: tuple[bytes, ...], lines: list[str]) -> None:
    assert assemble(*chunks) == lines


def test_a_line_without_end_is_cut_into_bounded_pieces_and_nothing_is_lost() -> None:
    assembler = LineAssembler()
    lines = [line for _ in range(100) for line in assembler.feed(b"x" * 1000)] + assembler.flush()
    assert max(map(len, lines)) <= LINE_LIMIT
    assert sum(map(len, lines)) == 100_000


def test_a_long_line_among_short_ones_is_cut_alone() -> None:
    lines = assemble(b"a\n" + b"y" * (2 * LINE_LIMIT + 1) + b"\n\nb\n")
    assert [len(line) for line in lines] == [1, LINE_LIMIT, LINE_LIMIT, 1, 0, 1]


def test_frames_are_bounded_and_keep_every_line() -> None:
    lines = [f"{number:050}" for number in range(5000)]
    parts = list(frames(lines))
    assert "\n".join(parts).split("\n") == lines
    assert len(parts) > 1
    assert max(map(len, parts)) <= FRAME_LIMIT + LINE_LIMIT


@pytest.mark.gen_test
async def test_the_scrollback_is_bounded_by_lines_and_by_size() -> None:
    console = Console(max_lines=3)
    console.feed(b"1\n2\n3\n4\n5\n")
    assert console.recent() == ["3\n4\n5"]
    wide = Console(max_lines=100_000)
    for _ in range(300):
        wide.feed(b"x" * LINE_LIMIT + b"\n")
    assert sum(map(len, wide.recent())) <= SCROLLBACK_LIMIT + 300


@pytest.mark.gen_test
async def test_a_listener_gets_what_comes_after_the_scrollback_and_nothing_twice() -> None:
    console = Console(max_lines=10)
    heard: asyncio.Queue[str] = asyncio.Queue()
    earlier: list[str] = []
    stop_earlier = console.listen(earlier.append)
    console.feed(b"before\n")
    console.feed(b"also before\n")  # waits in the batch of the first listener
    stop = console.listen(heard.put_nowait)
    assert console.recent() == ["before\nalso before"]
    console.feed(b"after\n")
    assert await heard.get() == "after"
    stop()
    console.feed(b"nobody listens\n")
    assert heard.empty()
    assert "\n".join(earlier).startswith("before\nalso before\nafter")
    stop_earlier()


@pytest.mark.gen_test
async def test_an_unfinished_line_is_shown_to_the_observer_too() -> None:
    console = Console(max_lines=10)
    seen: asyncio.Queue[list[str]] = asyncio.Queue()
    console.observe_output(seen.put_nowait)
    console.feed(b"ready> ")
    assert await seen.get() == ["ready> "]
    console.note("not of the process")
    assert seen.empty()
