"""Output of a process on a machine that holds the agent up: nothing is lost, and nothing looks late that had come."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine

from controlplane.refagent.child import BYTES_PER_WINDOW, READ_BYTES, Output
from controlplane.refagent.console import Console

CHUNK = 50_000  # less than a pipe takes
assert CHUNK < READ_BYTES


class HeldLoop(asyncio.SelectorEventLoop):
    """Its clock stands still until it is moved: by a jump for a loop that was held up so long."""

    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__()

    def time(self) -> float:
        return self.now


class Flood:
    """What a process printed into a pipe, and the console that got it."""

    def __init__(self, loop: HeldLoop) -> None:
        self.loop = loop
        self.lines: list[str] = []
        self.console = Console(max_lines=10)
        self.console.observe_output(self.lines.extend)
        ours, self.pipe = os.pipe()
        self.read = 0
        self._has_come = asyncio.Event()
        self.output = Output(ours, self._take)

    def _take(self, data: bytes) -> None:
        self.read += len(data)
        self.console.feed(data)
        self._has_come.set()

    async def until_read(self, count: int) -> None:
        while self.read < count:
            self._has_come.clear()
            await self._has_come.wait()

    async def print_until_it_has_to_wait(self, last: bytes) -> None:
        """More than is read at once, with `last` at the end of it."""
        printed = 0
        while printed < BYTES_PER_WINDOW:
            chunk = b"x" * (CHUNK - len(last) - 1) + b"\n" + last
            os.write(self.pipe, chunk)
            printed += len(chunk)
            await self.until_read(printed)

    def end(self) -> None:
        self.output.close()
        os.close(self.pipe)


def run(scene: Callable[[Flood], Coroutine[None, None, None]]) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HeldLoop)
        flood = Flood(loop)
        try:
            await scene(flood)
        finally:
            flood.end()

    with asyncio.Runner(loop_factory=HeldLoop) as runner:
        runner.run(play())


def test_a_line_of_which_the_rest_had_come_is_not_shown_in_two() -> None:
    async def scene(flood: Flood) -> None:
        await flood.print_until_it_has_to_wait(b"half")
        os.write(flood.pipe, b" and half\n")
        flood.loop.now += 3
        await flood.until_read(flood.read + 1)
        assert flood.lines[-1] == "half and half"

    run(scene)


def test_what_had_come_before_the_end_is_read() -> None:
    async def scene(flood: Flood) -> None:
        await flood.print_until_it_has_to_wait(b"")
        os.write(flood.pipe, b"Out of memory\n")
        flood.output.close()
        assert flood.lines[-1] == "Out of memory"

    run(scene)


def test_a_prompt_is_shown_when_nothing_follows() -> None:
    async def scene(flood: Flood) -> None:
        os.write(flood.pipe, b"name? ")
        await flood.until_read(1)
        while not flood.lines:
            flood.loop.now += 0.05
            await asyncio.sleep(0)
        assert flood.lines == ["name? "]

    run(scene)
