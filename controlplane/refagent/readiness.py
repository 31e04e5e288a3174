"""When the workload can be used: a line that it prints, a port that accepts, or simply that it runs."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Protocol

PROBE_SECONDS = 0.2
PROBE_READY_SECONDS = 2.0
CONNECT_SECONDS = 1.0


class Readiness(Protocol):
    """Judges one process since its latest start. `reason` is a sentence that explains `ready`."""

    @property
    def ready(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    def begin(self, on_change: Callable[[], None]) -> None:
        """A process was started: nothing is known any more."""

    def observe(self, lines: list[str]) -> None:
        """The process printed these."""

    def end(self) -> None:
        """The process ended."""


class RunningIsReady:
    """No sign was configured: a process that runs is taken as ready."""

    def __init__(self) -> None:
        self.ready = False
        self.reason = "the process does not run"

    def begin(self, on_change: Callable[[], None]) -> None:
        self.ready = True
        self.reason = "the process runs; no sign of readiness is configured"
        on_change()

    def observe(self, lines: list[str]) -> None:
        """Output says nothing here."""

    def end(self) -> None:
        self.ready = False
        self.reason = "the process does not run"


class PrintsPattern:
    """Ready once a line since the latest start matches."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._on_change: Callable[[], None] | None = None
        self.ready = False
        self.reason = "the process does not run"

    def begin(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.ready = False
        self.reason = f"no line has matched {self._pattern.pattern!r} since the start"

    def observe(self, lines: list[str]) -> None:
        if self.ready or self._on_change is None:
            return
        if any(self._pattern.search(line) for line in lines):
            self.ready = True
            self.reason = f"a line has matched {self._pattern.pattern!r}"
            self._on_change()

    def end(self) -> None:
        self._on_change = None
        self.ready = False
        self.reason = "the process does not run"


class PortAccepts:
    """Ready while a TCP port on loopback accepts connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._probe: asyncio.Task[None] | None = None
        self.ready = False
        self.reason = "the process does not run"

    def begin(self, on_change: Callable[[], None]) -> None:
        self.end()
        self.reason = f"port {self._port} has not accepted a connection since the start"
        self._probe = asyncio.get_running_loop().create_task(self._keep_probing(on_change))

    def observe(self, lines: list[str]) -> None:
        """Output says nothing here."""

    def end(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self.ready = False
        self.reason = "the process does not run"

    async def _keep_probing(self, on_change: Callable[[], None]) -> None:
        while True:
            accepts = await self._accepts()
            if accepts != self.ready:
                self.ready = accepts
                self.reason = f"port {self._port} {'accepts' if accepts else 'does not accept'} connections"
                on_change()
            await asyncio.sleep(PROBE_READY_SECONDS if accepts else PROBE_SECONDS)

    async def _accepts(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # TimeoutError is one
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True
