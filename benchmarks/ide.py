"""The IDE's proxy beside nginx and jupyter-server-proxy, in turns, before one cheap app: `python -m benchmarks.ide`.

`--seconds S` of load and `--rounds N` for each. jupyter-server-proxy lives in a venv of its own, made by the command
that is printed where it is missing. `--workbench` times cold loads of a real code-server (`make ide-check` installs
it) instead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

from benchmarks.ide_parts import app, load, proxies, workbench
from benchmarks.ide_parts.load import Way

OPEN_SOCKETS = 500
FRAMES_BYTES = 512 << 20


@dataclass
class Contender:
    """One way and what was measured on it. `process` is the proxy's, None for the direct way."""

    way: Way
    process: psutil.Process | None
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self.figures[name])

    def cpu(self) -> float:
        times = self.process.cpu_times() if self.process else None
        return times.user + times.system if times else 0.0

    @property
    def memory(self) -> int:
        return int(self.process.memory_info().rss) if self.process else 0


def measure(contender: Contender, seconds: float) -> None:
    way, note = contender.way, contender.note
    before = contender.cpu()
    rate = _run(lambda: load.requests_per_second(way, seconds))
    note("requests/s", rate)
    note("µs CPU/request", (contender.cpu() - before) / (rate * seconds) * 1e6)
    count, trips = int(seconds * 500), int(seconds * 5000)
    for name, value in zip(("small p50 µs", "small p99 µs"), load.latencies(way, count), strict=True):
        note(name, value)
    note("20 MB MB/s", statistics.median(load.large_file(way) for _ in range(5)))
    before = contender.cpu()
    for name, value in zip(("ws trip p50 µs", "ws trip p99 µs"), load.round_trips(way, trips), strict=True):
        note(name, value)
    note("µs CPU/ws trip", (contender.cpu() - before) / trips * 1e6)
    note("ws down MB/s", load.frames_down(way, FRAMES_BYTES))
    note("ws up MB/s", load.frames_up(way, FRAMES_BYTES))


def _run(work: Callable[[], object]) -> float:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result: float = runner.run(work())  # type: ignore[arg-type]
        return result


def memory_of_sockets(contender: Contender) -> float:
    """KiB a socket, of OPEN_SOCKETS that have each carried a message."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(load.open_socket(contender.way, "/echo"))  # what the first one brings is not theirs
        before = contender.memory
        for _ in range(OPEN_SOCKETS):
            load.echo_once(stack.enter_context(load.open_socket(contender.way, "/echo")))
        return (contender.memory - before) / OPEN_SOCKETS / 1024


def table(contenders: list[Contender]) -> None:
    names = list(contenders[-1].figures)
    print(f"{'':<18}" + "".join(f"{each.way.name:>22}" for each in contenders))
    for name in names:
        cells = [f"{each.median(name):22,.1f}" if name in each.figures else f"{'':>22}" for each in contenders]
        print(f"{name:<18}" + "".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ide", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workbench", action="store_true")
    given = parser.parse_args()
    if given.workbench:
        workbench.measure(given.rounds)
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        pipe, its_end = context.Pipe()
        serving = context.Process(target=app.run, args=(its_end,), daemon=True)
        serving.start()
        stack.callback(serving.join)
        stack.callback(pipe.send, None)
        port = pipe.recv()
        contenders = [Contender(Way("direct", port), None)]
        contenders.append(Contender(*stack.enter_context(proxies.nginx(folder, port))))
        if proxies.JUPYTER.exists():
            contenders.append(Contender(*stack.enter_context(proxies.jupyter(folder, port))))
        else:
            print(f"jupyter-server-proxy is not measured; install it by\n  {proxies.INSTALL_JUPYTER}")
        contenders.append(Contender(*stack.enter_context(proxies.control_plane(folder, port))))
        for contender in contenders[1:]:  # first: what a load leaves behind would hide it
            contender.note("KiB/open socket", memory_of_sockets(contender))
        for _ in range(given.rounds):
            for contender in contenders:
                measure(contender, given.seconds)
        table(contenders)


if __name__ == "__main__":
    main()
