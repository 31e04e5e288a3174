"""How often one customer may make us call the payment provider, whose limits are shared by all customers."""

from __future__ import annotations

from collections import OrderedDict, deque

from controlplane.errors import TooManyRequests
from controlplane.ports import Clock

CALLS = 20
WINDOW_SECONDS = 60.0
USERS_REMEMBERED = 10_000


class Pace:
    """A sliding window for each user, in this process."""

    def __init__(self, clock: Clock, *, calls: int = CALLS) -> None:
        self._clock = clock
        self._calls = calls
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, user_id: str) -> None:
        """Raises TooManyRequests."""
        now = self._clock.monotonic()
        times = self._times.setdefault(user_id, deque())
        self._times.move_to_end(user_id)
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        if len(times) >= self._calls:
            wait = int(times[0] + WINDOW_SECONDS - now) + 1
            raise TooManyRequests("Too many requests about billing; wait a little.", retry_after_seconds=wait)
        times.append(now)
        if len(self._times) > USERS_REMEMBERED:
            self._times.popitem(last=False)
