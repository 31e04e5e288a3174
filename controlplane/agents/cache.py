"""The latest state of every agent, in memory, written behind to storage. Advisory: the agents are the truth.

Reads never wait. Writes go out in bulk for what changed: news at once, moving detail (memory in use, uptime) at most
every DETAIL_SECONDS, and a plain "seen again" as one command for all. While the database is away nothing is lost: the
latest state of each agent stays marked until it is written, so the bound is the number of agents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from controlplane.agents.states import core
from controlplane.models import AgentState
from controlplane.ports import AgentStateRepository, Clock

DETAIL_SECONDS = 30.0
SEEN_SECONDS = 10.0
BATCH = 1000
UNWRITTEN_REVISIONS = 10_000
"""Skipped at a restart: revisions are ETags, and those that a crash kept from being written must not come again."""

StateListener = Callable[[AgentState, AgentState], None]
"""Called with the state before and after a change that is news (see `states.core`)."""


class StateCache:
    def __init__(self, repository: AgentStateRepository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock
        self._states: dict[str, AgentState] = {}
        self._news: dict[str, None] = {}
        self._detail: dict[str, None] = {}
        self._seen: dict[str, None] = {}
        self._detail_due = 0.0
        self._seen_due = 0.0
        self._followed_until: datetime | None = None
        self._listeners: list[StateListener] = []

    def get(self, instance_id: str) -> AgentState:
        """Never None: an agent that was not observed yet is `connecting` and stale."""
        state = self._states.get(instance_id)
        if state is None:
            state = self._states[instance_id] = AgentState(instance_id)
        return state

    def add_listener(self, listener: StateListener) -> None:
        self._listeners.append(listener)

    def put(self, state: AgentState) -> None:
        """Take in what a poll of this process's saw."""
        before = self.get(state.instance_id)
        self._states[state.instance_id] = state
        if core(before) != core(state):
            self._news[state.instance_id] = None
            for listener in self._listeners:
                listener(before, state)
        elif before.revision != state.revision:
            self._detail[state.instance_id] = None
        elif before.observed_at != state.observed_at:
            self._seen[state.instance_id] = None

    def forget(self, instance_id: str) -> None:
        self._states.pop(instance_id, None)
        self._written(instance_id)

    def _written(self, instance_id: str) -> None:
        for names in (self._news, self._detail, self._seen):
            names.pop(instance_id, None)

    async def load(self) -> None:
        """What was known before a restart; served as stale until it is observed again."""
        for state in await self._repository.load_all():
            loaded = replace(_unconfirmed(state), revision=state.revision + UNWRITTEN_REVISIONS)
            self._states.setdefault(state.instance_id, loaded)

    # -- the process that polls --------------------------------------------------------------------------------------

    async def flush(self, *, fence: int, everything: bool = False) -> None:
        """Write what is due. Raises StorageUnavailable, and keeps what was not written for the next time.

        `fence` is the polling lease's: rows of a later holder are left alone. `everything` also writes what could wait.
        """
        moment = self._clock.monotonic()
        due = dict(self._news)
        if everything or moment >= self._detail_due:
            due |= self._detail
            self._detail_due = moment + DETAIL_SECONDS
        await self._save(list(due), fence)
        if everything or moment >= self._seen_due:
            self._seen_due = moment + SEEN_SECONDS
            await self._touch(fence)

    async def _save(self, instance_ids: list[str], fence: int) -> None:
        for start in range(0, len(instance_ids), BATCH):
            batch = [self._states[each] for each in instance_ids[start : start + BATCH] if each in self._states]
            await self._repository.save_many(batch, fence=fence)
            for state in batch:
                if self._states.get(state.instance_id) is state:  # else it changed meanwhile and is due again
                    self._written(state.instance_id)

    async def _touch(self, fence: int) -> None:
        seen = [self._states[each] for each in self._seen if each in self._states]
        for start in range(0, len(seen), BATCH):
            batch = seen[start : start + BATCH]
            earliest = min(state.observed_at for state in batch if state.observed_at is not None)
            await self._repository.touch_observed([state.instance_id for state in batch], earliest, fence=fence)
            for state in batch:
                if self._states.get(state.instance_id) is state:
                    self._seen.pop(state.instance_id, None)

    @property
    def waiting(self) -> int:
        """How many agents have a state that storage has not."""
        return len(self._news.keys() | self._detail.keys())

    # -- the processes that do not poll ------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Take in what the polling process wrote."""
        changed, self._followed_until = await self._repository.changed_since(self._followed_until)
        for state in changed:
            before = self.get(state.instance_id)
            if _version(state) == _version(before):
                continue
            self._states[state.instance_id] = state
            if core(before) != core(state):
                for listener in self._listeners:
                    listener(before, state)

    def begin_following(self) -> None:
        """Another process polls from now on: what waits here is older than what it will write."""
        self._followed_until = None
        for names in (self._news, self._detail, self._seen):
            names.clear()
        for instance_id, state in self._states.items():
            self._states[instance_id] = _unconfirmed(state)


def _unconfirmed(state: AgentState) -> AgentState:
    return replace(state, confirmed=False)


def _version(state: AgentState) -> tuple[object, ...]:
    return state.revision, state.observed_at, state.confirmed
