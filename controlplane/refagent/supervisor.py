"""The life of one supervised program: legal transitions, stopping by stages, crash detection, readiness.

Bytes are moved by `child`, lines kept by `console`; HTTP is `app`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controlplane.refagent.child import Child, InputFull
from controlplane.refagent.console import Console
from controlplane.refagent.faults import AgentFault, conflict
from controlplane.refagent.guard import GroupGuard
from controlplane.refagent.readiness import Readiness

TERMINATE_SECONDS = 5.0  # between SIGTERM and SIGKILL, where a stop line came first
KILL_SECONDS = 5.0  # a process that outlives this after SIGKILL hangs in the kernel
RESTART_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
STABLE_SECONDS = 60.0  # a run this long forgets earlier crashes


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"
    ERROR = "error"


UP = frozenset({State.STARTING, State.RUNNING})


@dataclass(frozen=True, slots=True)
class Program:
    """What is run and how it is ended. `stop_line` is written to its input before any signal is sent."""

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    terminal: bool
    stop_line: str | None
    stop_seconds: float
    crash_restart: bool


class Supervisor:
    """Runs one program. All methods belong to the event loop's thread."""

    def __init__(self, program: Program, console: Console, readiness: Readiness, guard: GroupGuard) -> None:
        self._program = program
        self._guard = guard
        self._console = console
        self._readiness = readiness
        self._child: Child | None = None
        self._spawning = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._stages: asyncio.Task[None] | None = None
        self._start_later: asyncio.Task[None] | None = None
        self._start_after_exit = False
        self._crashes = 0
        self._started_at = 0.0
        self._held_for: str | None = None
        self._retired = False
        self.state = State.STOPPED
        self.error: str | None = None
        console.observe_output(readiness.observe)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def uptime_seconds(self) -> float | None:
        return asyncio.get_running_loop().time() - self._started_at if self._child is not None else None

    @property
    def ready(self) -> bool:
        return self.state is State.RUNNING and self._readiness.ready

    @property
    def reason(self) -> str:
        if self.state in UP:
            return self._readiness.reason
        return f"the process is {self.state}" if self.error is None else f"the process is {self.state}: {self.error}"

    async def start(self) -> None:
        """Start unless it runs. Raises AgentFault: 409 while stopping or held, 500 when it cannot be executed."""
        self._refuse_while_held()
        if self.state is State.STOPPING:
            raise conflict("stopping", f"{self._program.name} is stopping: start it once it has stopped.")
        if self.state in UP:
            return
        self._forget_planned_start()
        self._crashes = 0
        await self._launch()

    async def stop(self) -> None:
        """Begin to stop, and return at once. A program that does not run stays as it is."""
        self._refuse_while_held()
        self._begin_stop()

    async def restart(self) -> None:
        """Stop if it runs, then start; returns at once. Raises AgentFault as `start` does."""
        if self.state not in UP:
            await self.start()
            return
        self._refuse_while_held()
        self._begin_stop()
        self._start_after_exit = True

    def send_line(self, line: str) -> None:
        """Write a line to the input. Raises AgentFault: 409 when nothing runs, 503 when it does not read."""
        if self.state not in UP or self._child is None:
            raise conflict("not_running", f"{self._program.name} is {self.state}: nothing reads its console.")
        try:
            self._child.write(line.encode() + b"\n")
        except InputFull:
            raise AgentFault(503, "input_full", f"{self._program.name} does not read its input.") from None
        except OSError:
            raise conflict("input_closed", f"{self._program.name} has closed its input.") from None

    @contextlib.asynccontextmanager
    async def held(self, reason: str) -> AsyncIterator[None]:
        """Stop the program, refuse power actions meanwhile (409 with the code `reason`), start it again if it ran."""
        self._refuse_while_held()
        ran = self.state in UP or self._start_later is not None or self._start_after_exit
        self._held_for = reason
        try:
            await self.stop_and_wait()
            yield
        finally:
            self._held_for = None
            if ran:
                with contextlib.suppress(AgentFault):  # the state says why it did not start
                    await self._launch()

    async def stop_and_wait(self) -> None:
        """Returns once nothing runs any more."""
        self._begin_stop()
        async with self._spawning:
            watch = self._watch
        if watch is not None:
            await asyncio.wait([watch])

    async def retire(self) -> None:
        """The agent ends: stop for good. Nothing starts any more, whatever is under way."""
        self._retired = True
        await self.stop_and_wait()

    def kill(self) -> None:
        """At once, without asking."""
        if self._child is not None:
            self._child.signal_group(signal.SIGKILL)

    def _refuse_while_held(self) -> None:
        if self._held_for is not None:
            raise conflict(self._held_for, f"{self._program.name} is held back by another operation.")

    def _forget_planned_start(self) -> None:
        self._start_after_exit = False
        if self._start_later is not None:
            self._start_later.cancel()
            self._start_later = None

    def _begin_stop(self) -> None:
        self._forget_planned_start()
        if self.state in UP:
            self.state = State.STOPPING
            self._stages = asyncio.get_running_loop().create_task(self._stop_by_stages())

    async def _launch(self) -> None:
        if self._retired:
            raise conflict("agent_ending", "The agent is ending.")
        loop = asyncio.get_running_loop()
        self.state = State.STARTING
        self.error = None
        async with self._spawning:
            try:
                child = await Child.spawn(
                    self._program.command,
                    folder=self._program.folder,
                    environment=self._program.environment,
                    terminal=self._program.terminal,
                    on_output=self._console.feed,
                )
            except OSError as error:
                self.state = State.ERROR
                self.error = f"cannot execute {self._program.command[0]!r}: {error.strerror or error}"
                self._console.note(self.error)
                raise AgentFault(500, "spawn_failed", f"{self._program.name} {self.error}.") from error
            self._guard.watch(child.pid)
            self._child = child
            self._started_at = loop.time()
            self._watch = loop.create_task(self._watch_for_exit(child))
        self._console.note(f"{self._program.name} started")
        self._readiness.begin(self._follow_readiness)

    def _follow_readiness(self) -> None:
        if self.state is State.STARTING and self._readiness.ready:
            self.state = State.RUNNING

    async def _watch_for_exit(self, child: Child) -> None:
        status = await child.wait()
        self._guard.forget(child.pid)
        self._console.end_of_output()
        self._readiness.end()
        loop = asyncio.get_running_loop()
        ran_seconds = loop.time() - self._started_at
        self._child = None
        asked = self.state is State.STOPPING
        self.state, self.error = outcome(status, asked_to_stop=asked)
        self._console.note(f"{self._program.name} {self.error or self.state}")
        if self._start_after_exit:
            self._start_after_exit = False
            self._start_later = loop.create_task(self._launch_after(0.0))
        elif self.state is State.CRASHED and self._program.crash_restart:
            self._crashes = 0 if ran_seconds >= STABLE_SECONDS else self._crashes
            delay = RESTART_DELAYS[min(self._crashes, len(RESTART_DELAYS) - 1)]
            self._crashes += 1
            self._console.note(f"{self._program.name} starts again in {delay:g} s")
            self._start_later = loop.create_task(self._launch_after(delay))

    async def _launch_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._start_later = None
        with contextlib.suppress(AgentFault):  # the state says why
            await self._launch()

    async def _stop_by_stages(self) -> None:
        """The stop line where there is one, SIGTERM, SIGKILL, each with its limit."""
        async with self._spawning:
            child, watch = self._child, self._watch
        if child is None or watch is None:
            return
        grace = self._program.stop_seconds
        if self._program.stop_line is not None:
            with contextlib.suppress(InputFull, OSError):  # then the signal tells it
                child.write(self._program.stop_line.encode() + b"\n")
                if await _ends(watch, grace):
                    return
            grace = TERMINATE_SECONDS
        child.signal_group(signal.SIGTERM)
        if await _ends(watch, grace):
            return
        self._console.note(f"{self._program.name} does not stop: it is killed")
        child.signal_group(signal.SIGKILL)
        if not await _ends(watch, KILL_SECONDS):
            self.error = "it hangs in the kernel and outlives SIGKILL"


def outcome(status: int, *, asked_to_stop: bool) -> tuple[State, str | None]:
    """The state and the error after a process ended with `status` (negative: the signal that killed it).

    What ends by itself with status 0 was told to quit over its own console or menu: stopped, not crashed.
    """
    if asked_to_stop or status == 0:
        return State.STOPPED, None
    if status < 0:
        return State.CRASHED, f"killed by {_signal_name(-status)}"
    return State.CRASHED, f"exited with status {status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _ends(watch: asyncio.Task[None], seconds: float) -> bool:
    done, _ = await asyncio.wait([watch], timeout=seconds)
    return bool(done)
