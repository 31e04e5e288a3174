"""Work that goes on after the answer, such as sending mail: bounded, waited for at the end, its failures logged.

Mail is sent after the answer so that neither its time nor its failure tells whether an account exists.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from controlplane.errors import ControlPlaneError

logger = logging.getLogger(__name__)

LIMIT = 100
CLOSE_SECONDS = 5.0


class AfterAnswer:
    """At the bound new work is dropped with a line in the log: a flood of resets must not exhaust the process."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= self._limit:
            work.close()
            logger.error("too much waits to be done after answers; dropped", extra={"what": what})
            return
        task = asyncio.create_task(self._run(what, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Wait a bounded time, then give up what is left."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()

    async def _run(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ControlPlaneError as error:
            logger.error("work after an answer failed", extra={"what": what, "why": error.message})  # noqa: TRY400
        except Exception:
            logger.exception("work after an answer failed", extra={"what": what})
