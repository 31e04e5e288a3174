"""Fakes shared by the tests: they satisfy the ports in `controlplane.ports` and hold still until told to move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controlplane.errors import AgentError, StorageUnavailable
from controlplane.models import AgentEndpoint, AgentState, Entitlement
from controlplane.ports import AgentResponse, MailMessage


class FakeClock:
    """A clock that moves only by `advance`."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


class FakeMailer:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[MailMessage] = []

    async def send(self, message: MailMessage) -> None:
        self.sent.append(message)


class FakeEntitlements:
    """What one user has; for anybody else nobody is to ask."""

    def __init__(self, user_id: str, entitlement: Entitlement | None) -> None:
        self.user_id = user_id
        self.entitlement = entitlement

    async def of(self, user_id: str) -> Entitlement | None:
        assert user_id == self.user_id
        return self.entitlement

    async def coming(self, user_id: str) -> None:
        """No other plan is on its way."""


class FakeTransport:
    """Agents that answer at once, or not until told. `answers` maps a port to what all three paths say."""

    HEALTHY = AgentResponse(200, {}, b'{"ready": true, "state": "running"}')

    def __init__(self) -> None:
        self.answers: dict[int, AgentResponse | AgentError] = {}
        self.silent: set[int] = set()
        self.asked: list[tuple[int, str]] = []
        self.waiting: list[asyncio.Future[AgentResponse]] = []
        self.forgotten: list[AgentEndpoint] = []

    def request(
        self,
        endpoint: AgentEndpoint,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        request_id: str | None = None,
        timeout_seconds: float,
        body_limit_bytes: int,
    ) -> Awaitable[AgentResponse]:
        self.asked.append((endpoint.port, target))
        future: asyncio.Future[AgentResponse] = asyncio.get_running_loop().create_future()
        if endpoint.port in self.silent:
            self.waiting.append(future)
            return future
        answer = self.answers.get(endpoint.port, self.HEALTHY)
        if isinstance(answer, AgentError):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    def forget(self, endpoint: AgentEndpoint) -> None:
        self.forgotten.append(endpoint)

    async def close(self) -> None:
        """Nothing is open."""

    def polls_of(self, port: int) -> int:
        return sum(asked == (port, "/health") for asked in self.asked)


class FakeStateRepository:
    """Agents' states in a dict; `is_away` makes every call fail as an unreachable database does."""

    def __init__(self) -> None:
        self.states: dict[str, AgentState] = {}
        self.fences: dict[str, int] = {}
        self.writes: list[list[str]] = []
        self.touches: list[list[str]] = []
        self.is_away = False

    def _reach(self) -> None:
        if self.is_away:
            raise StorageUnavailable

    async def load_all(self) -> list[AgentState]:
        self._reach()
        return list(self.states.values())

    async def save_many(self, states: Sequence[AgentState], *, fence: int) -> None:
        self._reach()
        if not states:
            return
        self.writes.append([state.instance_id for state in states])
        for state in states:
            if self.fences.get(state.instance_id, 0) <= fence:
                self.states[state.instance_id] = state
                self.fences[state.instance_id] = fence

    async def touch_observed(self, instance_ids: Sequence[str], observed_at: datetime, *, fence: int) -> None:
        self._reach()
        self.touches.append(list(instance_ids))
        for instance_id in instance_ids:
            self.states[instance_id] = replace(self.states[instance_id], observed_at=observed_at)

    async def changed_since(self, since: datetime | None) -> tuple[list[AgentState], datetime]:
        self._reach()
        return list(self.states.values()), datetime(2026, 1, 1, tzinfo=UTC)

    async def remove(self, instance_id: str) -> None:
        self._reach()
        self.states.pop(instance_id, None)
