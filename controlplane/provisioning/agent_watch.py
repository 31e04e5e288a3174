"""Waiting for the agent in a new machine: that it answers, and then that it is semantically ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controlplane.agents.client import AgentClient
from controlplane.errors import AgentError, ControlPlaneError
from controlplane.models import AgentEndpoint, MachineAddress
from controlplane.ports import Clock


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a machine's agent, and what makes it ready: `ready_checks` good answers in a row."""

    boot_seconds: float
    ready_seconds: float
    ready_checks: int
    ready_interval_seconds: float


class TookTooLong(ControlPlaneError):
    """A wait ended without what it was for: trying the same again would not help. `operator_message` says what was
    seen last."""

    code = "took_too_long"

    def __init__(self, message: str, *, code: str, operator_message: str) -> None:
        super().__init__(message, code=code)
        self.operator_message = operator_message


class AgentWatch:
    def __init__(
        self,
        agents: AgentClient,
        clock: Clock,
        patience: Patience,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._agents = agents
        self._clock = clock
        self._patience = patience
        self._sleep = sleep

    async def until_answering(
        self,
        locate: Callable[[], Awaitable[MachineAddress | None]],
        endpoint_of: Callable[[MachineAddress], AgentEndpoint],
        what: str,
    ) -> MachineAddress:
        """Where `/health` answers, once it does. Raises TookTooLong (`boot_timeout`)."""
        ends = self._clock.monotonic() + self._patience.boot_seconds
        while True:
            problem: str | None = "it has no address yet"
            where = await locate()
            if where is not None:
                problem = await self._health_problem(endpoint_of(where))
                if problem is None:
                    return where
            if self._clock.monotonic() >= ends:
                raise TookTooLong(
                    "The instance did not start in time.",
                    code="boot_timeout",
                    operator_message=f"{what} after {self._patience.boot_seconds:g} s: {problem}",
                )
            await self._sleep(self._patience.ready_interval_seconds)

    async def _health_problem(self, endpoint: AgentEndpoint) -> str | None:
        try:
            response = await self._agents.get_agent_health(endpoint)
        except AgentError as error:
            said = error.message
        else:
            if 200 <= response.status < 300:
                return None
            said = f"status {response.status}"
        return f"GET /health at {endpoint.address} port {endpoint.port}: {said}"

    async def until_ready(self, endpoint: AgentEndpoint, what: str) -> None:
        """Semantically ready, several times in a row. Raises TookTooLong (`ready_timeout`)."""
        ends = self._clock.monotonic() + self._patience.ready_seconds
        in_a_row = 0
        while True:
            try:
                await self._agents.assert_agent_ready(endpoint)
            except AgentError as error:
                in_a_row = 0
                if self._clock.monotonic() >= ends:
                    raise TookTooLong(
                        "The instance did not get ready in time.",
                        code="ready_timeout",
                        operator_message=f"{what}, agent at {endpoint.address} port {endpoint.port}, "
                        f"after {self._patience.ready_seconds:g} s: {error.message}",
                    ) from error
            else:
                in_a_row += 1
                if in_a_row >= self._patience.ready_checks:
                    return
            await self._sleep(self._patience.ready_interval_seconds)
