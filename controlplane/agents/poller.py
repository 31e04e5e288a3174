"""Asks every agent how it is, each on a schedule of its own. What answers mean is `states`' business.

Agents start at a random point of the interval and keep it, so that no burst forms. Those that were silent at their
latest poll run in a lane of their own with its own cap and are asked less and less often: they cost no healthy agent a
slot. One answer brings an agent back to the normal pace. `run_once` only starts what is due; polls are bounded tasks.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.agents.cache import StateCache
from controlplane.agents.client import AgentClient
from controlplane.agents.states import FAILURES_TO_DISCONNECT, Observation, Outcome, next_state
from controlplane.errors import AgentError
from controlplane.models import AgentEndpoint, AgentState, Process
from controlplane.observability.metrics import Metrics
from controlplane.ports import AgentResponse, Clock

logger = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 60.0
ATTENTION_SECONDS = 30.0
ATTENTION_INTERVAL_SECONDS = 1.0
SOONEST_SECONDS = 0.25
SILENT_SHARE = 4  # the silent lane has a quarter of the healthy lane's slots
_SETTLED = frozenset({Process.STOPPED, Process.CRASHED})


@dataclass(frozen=True, slots=True)
class PollTarget:
    """What to poll, and where it is."""

    instance_id: str
    endpoint: AgentEndpoint


class _Watched:
    """The schedule of one agent. `ticket` names its valid entry in the queue; older entries are void."""

    __slots__ = ("attention_until", "due", "last_began", "polling", "target", "ticket")

    def __init__(self, target: PollTarget, due: float) -> None:
        self.target = target
        self.due = due
        self.ticket = 0
        self.polling = False
        self.last_began = -1e9
        self.attention_until = -1e9


class Poller:
    """Seconds throughout. `random` gives floats in [0, 1)."""

    def __init__(
        self,
        client: AgentClient,
        cache: StateCache,
        clock: Clock,
        metrics: Metrics,
        *,
        interval_seconds: float,
        concurrency: int,
        random: Callable[[], float],
    ) -> None:
        self._client = client
        self._cache = cache
        self._clock = clock
        self._metrics = metrics
        self._interval = interval_seconds
        self._cap = concurrency
        self._silent_cap = max(1, concurrency // SILENT_SHARE)
        self._random = random
        self._watched: dict[str, _Watched] = {}
        self._healthy_queue: list[tuple[float, int, str]] = []
        self._silent_queue: list[tuple[float, int, str]] = []
        self._tickets = itertools.count(1)
        self._healthy_tasks: set[asyncio.Task[None]] = set()
        self._silent_tasks: set[asyncio.Task[None]] = set()
        self._running = False

    # -- what is polled ----------------------------------------------------------------------------------------------

    def watch(self, target: PollTarget) -> None:
        """Begin to poll, or go on with a changed endpoint. A new agent is first asked within one interval."""
        known = self._watched.get(target.instance_id)
        if known is not None:
            if known.target.endpoint != target.endpoint:
                self._client.forget(known.target.endpoint)
                known.target = target
                self.poll_now(target.instance_id)
            return
        watched = _Watched(target, self._clock.monotonic() + self._random() * self._interval)
        self._watched[target.instance_id] = watched
        self._enqueue(watched)

    def forget(self, instance_id: str) -> None:
        """A poll under way ends without effect."""
        watched = self._watched.pop(instance_id, None)
        if watched is not None:
            self._client.forget(watched.target.endpoint)

    def poll_now(self, instance_id: str) -> None:
        """Somebody acted on this agent: look at it at once, and for a while more often than usual."""
        watched = self._watched.get(instance_id)
        if watched is None:
            return
        moment = self._clock.monotonic()
        watched.attention_until = moment + ATTENTION_SECONDS
        watched.due = max(moment, watched.last_began + SOONEST_SECONDS)
        if not watched.polling:
            self._enqueue(watched)
            if self._running:
                self._start_due(moment)

    # -- the job -----------------------------------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Start the polls that are due. Those that find no free slot start when one is free."""
        self._running = True
        self._start_due(self._clock.monotonic())

    def pause(self) -> None:
        """Start no more polls: another process holds the lease, or the service stops."""
        self._running = False

    async def drain(self) -> None:
        """Stop, and wait for the polls under way: each has its deadline."""
        self.pause()
        under_way = self._healthy_tasks | self._silent_tasks
        if under_way:
            await asyncio.wait(under_way)

    def overdue_seconds(self, moment: float) -> float:
        """How far the healthy lane is behind its schedule."""
        while self._healthy_queue and not self._is_valid(self._healthy_queue[0]):
            heapq.heappop(self._healthy_queue)
        return max(0.0, moment - self._healthy_queue[0][0]) if self._healthy_queue else 0.0

    # -- within ------------------------------------------------------------------------------------------------------

    def _is_silent(self, watched: _Watched) -> bool:
        return self._cache.get(watched.target.instance_id).consecutive_failures > 0

    def _enqueue(self, watched: _Watched) -> None:
        watched.ticket = next(self._tickets)
        queue = self._silent_queue if self._is_silent(watched) else self._healthy_queue
        heapq.heappush(queue, (watched.due, watched.ticket, watched.target.instance_id))

    def _is_valid(self, entry: tuple[float, int, str]) -> bool:
        watched = self._watched.get(entry[2])
        return watched is not None and watched.ticket == entry[1] and not watched.polling

    def _start_due(self, moment: float) -> None:
        self._start_lane(self._healthy_queue, self._healthy_tasks, self._cap, moment)
        self._start_lane(self._silent_queue, self._silent_tasks, self._silent_cap, moment)

    def _start_lane(
        self, queue: list[tuple[float, int, str]], tasks: set[asyncio.Task[None]], cap: int, moment: float
    ) -> None:
        while queue and queue[0][0] <= moment and len(tasks) < cap:
            entry = heapq.heappop(queue)
            if not self._is_valid(entry):
                continue
            watched = self._watched[entry[2]]
            watched.polling = True
            watched.last_began = moment
            self._metrics.poll_lag_seconds.observe(moment - watched.due)
            task = asyncio.create_task(self._poll(watched, watched.target))
            tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._healthy_tasks.discard(task)
        self._silent_tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a poll failed", exc_info=task.exception())
        if self._running:
            self._start_due(self._clock.monotonic())

    def observe_lanes(self) -> None:
        """Set the gauges of polls under way."""
        self._metrics.polls_in_flight.labels("healthy").set(len(self._healthy_tasks))
        self._metrics.polls_in_flight.labels("silent").set(len(self._silent_tasks))

    async def _poll(self, watched: _Watched, target: PollTarget) -> None:
        scheduled = watched.due
        began = self._clock.monotonic()
        try:
            observation = await self._observe(target.endpoint, began)
            if self._watched.get(target.instance_id) is watched and watched.target is target:
                state = next_state(self._cache.get(target.instance_id), observation, self._clock.now())
                self._cache.put(state)
        finally:
            ended = self._clock.monotonic()
            watched.polling = False
            if self._watched.get(target.instance_id) is watched:
                if watched.due <= scheduled:  # else `poll_now` was called meanwhile
                    watched.due = self._next_due(watched, scheduled, ended)
                self._enqueue(watched)
        self._metrics.poll_seconds.observe(ended - began)
        self._metrics.polls.labels("answered" if isinstance(observation.health, AgentResponse) else "failed").inc()

    async def _observe(self, endpoint: AgentEndpoint, began: float) -> Observation:
        """`/health`, then `/ready` and `/status` side by side, all within one deadline."""
        try:
            health = await self._client.get_agent_health(endpoint)
        except AgentError as error:
            return Observation(error)
        if not 200 <= health.status < 300:
            return Observation(health)
        left = max(0.001, self._client.poll_timeout_seconds - (self._clock.monotonic() - began))
        ready_under_way = self._client.get_agent_ready(endpoint, left)
        status_under_way = self._client.get_agent_status(endpoint, left)
        ready: Outcome
        status: Outcome
        try:
            ready = await ready_under_way
        except AgentError as error:
            ready = error
        try:
            status = await status_under_way
        except AgentError as error:
            status = error
        return Observation(health, ready, status)

    def _next_due(self, watched: _Watched, scheduled: float, ended: float) -> float:
        state = self._cache.get(watched.target.instance_id)
        pause = self._pause(state)
        if ended < watched.attention_until and not _is_settled(state):
            pause = min(pause, ATTENTION_INTERVAL_SECONDS)
        due = scheduled + pause
        # A schedule that fell behind starts anew at a random point, so that those who waited together part.
        return due if due > ended else ended + pause * (0.5 + self._random() / 2)

    def _pause(self, state: AgentState) -> float:
        """The interval; from the third failure on doubled each time, up to a minute (or the interval, if longer)."""
        excess = state.consecutive_failures - FAILURES_TO_DISCONNECT + 1
        if excess <= 0:
            return self._interval
        ceiling = max(self._interval, MAX_BACKOFF_SECONDS)
        pause: float = min(ceiling, self._interval * 2 ** min(excess, 10))
        return pause * (0.9 + 0.1 * self._random())


def _is_settled(state: AgentState) -> bool:
    return state.confirmed and (state.ready or state.process in _SETTLED)
