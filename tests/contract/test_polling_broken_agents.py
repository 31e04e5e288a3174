"""Broken agents beside 200 healthy ones, all real sockets: each state says what is wrong, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack

import psutil
import pytest

from controlplane.agents.cache import StateCache
from controlplane.agents.client import AgentClient
from controlplane.agents.http_connection import HttpTransport
from controlplane.agents.poller import Poller, PollTarget
from controlplane.clock import SystemClock
from controlplane.models import AgentState, Connection
from controlplane.observability.metrics import Metrics
from tests.broken_agents import KINDS, Kind, SocketAgent
from tests.fakes import FakeStateRepository

HEALTHY = 200
INTERVAL_SECONDS = 0.5
POLL_SECONDS = 1.0
"""On a machine that stands still so long a healthy agent is late too, and well again at its next turn."""
MEMORY_BYTES = 64 << 20


@pytest.mark.gen_test(timeout=110)
async def test_every_broken_agent_is_named_and_200_healthy_neighbours_are_polled_on_time() -> None:
    metrics = Metrics()
    cache = StateCache(FakeStateRepository(), SystemClock())
    transport = HttpTransport(check_dial=lambda _address: None)
    client = AgentClient(
        transport,
        poll_timeout_seconds=POLL_SECONDS,
        action_timeout_seconds=POLL_SECONDS,
        backup_timeout_seconds=POLL_SECONDS,
        body_limit_bytes=1 << 20,
    )
    poller = Poller(
        client,
        cache,
        SystemClock(),
        metrics,
        interval_seconds=INTERVAL_SECONDS,
        concurrency=64,
        random=random.Random(1).random,
    )
    before = psutil.Process().memory_info().rss
    async with AsyncExitStack() as stack:
        healthy = [await stack.enter_async_context(SocketAgent()) for _ in range(HEALTHY)]
        broken = {name: await stack.enter_async_context(SocketAgent(kind.behave)) for name, kind in KINDS.items()}
        for number, agent in enumerate(healthy):
            poller.watch(PollTarget(f"healthy {number}", agent.endpoint))
        for name, agent in broken.items():
            poller.watch(PollTarget(name, agent.endpoint))

        def untold() -> list[str]:
            """Whose state does not say yet what it is to say."""
            return [
                *(name for name, kind in KINDS.items() if not _is_told(cache.get(name), kind)),
                *(
                    f"healthy {number}"
                    for number, agent in enumerate(healthy)
                    if not cache.get(f"healthy {number}").ready or agent.requests.count("GET /health") < 8
                ),
            ]

        deadline = time.monotonic() + 100
        while names := untold():
            assert time.monotonic() < deadline, names
            await poller.run_once()
            await asyncio.sleep(0.02)
        polls = [agent.requests.count("GET /health") for agent in healthy]
        states = {name: cache.get(name) for name in KINDS}
        await poller.drain()
        await transport.close()
    assert max(polls) <= 1.5 * min(polls), "each had its turn about as often as the others"
    for name, kind in KINDS.items():
        state = states[name]
        assert not state.ready or kind.reason == "status_invalid", name
        assert not state.healthy, name
        assert state.message
    assert psutil.Process().memory_info().rss - before < MEMORY_BYTES
    assert metrics.registry.get_sample_value("controlplane_agent_poll_lag_seconds_count") is not None


def _is_told(state: AgentState, kind: Kind) -> bool:
    is_lost = state.connection is Connection.DISCONNECTED
    return state.reason == kind.reason and (is_lost or kind.clause != "GET /health")
