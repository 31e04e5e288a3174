"""Periodic work: Tornado PeriodicCallbacks around a `run_once`, each tick bounded in time.

PeriodicCallback does not overlap itself and survives exceptions, but a tick that hangs would stop it for ever: so each
tick has a time limit. What a tick does belongs to the service whose `run_once` it calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import Counter
from tornado.ioloop import PeriodicCallback

from controlplane.errors import StorageUnavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """`run_once` is called every `interval_seconds` and may take `time_limit_seconds`."""

    name: str
    run_once: Callable[[], Awaitable[None]]
    interval_seconds: float
    time_limit_seconds: float


class JobRunner:
    """Starts jobs together and stops them together, waiting for the ticks under way."""

    def __init__(self, failures: Counter) -> None:
        self._failures = failures
        self._callbacks: list[PeriodicCallback] = []
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self, job: Job) -> None:
        async def tick() -> None:
            task = asyncio.create_task(self._tick(job), name=f"job:{job.name}")
            self._under_way.add(task)
            try:
                await task
            finally:
                self._under_way.discard(task)

        callback = PeriodicCallback(tick, job.interval_seconds * 1000)
        self._callbacks.append(callback)
        callback.start()

    async def _tick(self, job: Job) -> None:
        try:
            async with asyncio.timeout(job.time_limit_seconds):
                await job.run_once()
        except TimeoutError:
            self._failures.labels(job.name).inc()
            logger.warning("a job ran out of time", extra={"job": job.name, "limitSeconds": job.time_limit_seconds})
        except StorageUnavailable as error:
            self._failures.labels(job.name).inc()
            logger.warning("a job waits for the database", extra={"job": job.name, "why": error.message})
        except Exception:
            self._failures.labels(job.name).inc()
            logger.exception("a job failed", extra={"job": job.name})

    async def stop(self, *, limit_seconds: float) -> None:
        """No new ticks; wait for those under way, then cancel them."""
        for callback in self._callbacks:
            callback.stop()
        self._callbacks.clear()
        if not self._under_way:
            return
        _, late = await asyncio.wait(self._under_way, timeout=limit_seconds)
        for task in late:
            task.cancel()
