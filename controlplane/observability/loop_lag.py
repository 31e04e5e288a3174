"""Measures all the time how late the IOLoop runs its timers: the first sign of anything that blocks."""

from __future__ import annotations

import asyncio
from collections import deque

from prometheus_client import Histogram

INTERVAL_SECONDS = 0.1
_WINDOW_SAMPLES = 300


class LoopLag:
    """Samples ten times a second. `worst_seconds` covers the latest thirty seconds."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._samples: deque[float] = deque(maxlen=_WINDOW_SAMPLES)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._arm(loop, loop.time() + INTERVAL_SECONDS)

    def _arm(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._timer = loop.call_at(due, self._sample, loop, due)

    def _sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        lag = max(0.0, now - due)
        self._samples.append(lag)
        self._histogram.observe(lag)
        self._arm(loop, now + INTERVAL_SECONDS)

    @property
    def worst_seconds(self) -> float:
        return max(self._samples, default=0.0)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
