"""Broken agents beside 200 healthy ones, all real sockets: each state says what is wrong, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import psutil
import pytest

from controlplane.agents.cache import StateCache
from controlplane.agents.client import AgentClient
from controlplane.agents.http_connection import HttpTransport
from controlplane.agents.poller import Poller, PollTarget
from controlplane.clock import SystemClock
from controlplane.models import Connection
from controlplane.observability.metrics import Metrics
from tests.broken_agents import KINDS, SocketAgent
from tests.fakes import FakeStateRepository

HEALTHY = 200
INTERVAL_SECONDS = 0.5
MEMORY_BYTES = 64 << 20


@pytest.mark.gen_test(timeout=60)
async def test_every_broken_agent_is_named_and_200_healthy_neighbours_are_polled_on_time() -> None:
    metrics = Metrics()
    cache = StateCache(FakeStateRepository(), SystemClock())
    transport = HttpTransport(check_dial=lambda _address: None)
    client = AgentClient(
        transport, poll_timeout_seconds=1, action_timeout_seconds=1, backup_timeout_seconds=1, body_limit_bytes=1 << 20
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

        def is_told() -> bool:
            return all(cache.get(name).reason == kind.reason for name, kind in KINDS.items()) and all(
                agent.requests.count("GET /health") >= 8 for agent in healthy
            )

        async with asyncio.timeout(40):
            while not is_told():
                await poller.run_once()
                await asyncio.sleep(0.02)
        polls = [agent.requests.count("GET /health") for agent in healthy]
        await poller.drain()
        await transport.close()
    assert all(cache.get(f"healthy {number}").ready for number in range(HEALTHY))
    assert max(polls) <= 1.5 * min(polls), "each had its turn about as often as the others"
    for name, kind in KINDS.items():
        state = cache.get(name)
        assert not state.ready or kind.reason == "status_invalid", name
        assert not state.healthy, name
        assert state.message
        if kind.clause == "GET /health":
            assert state.connection is Connection.DISCONNECTED, name
    assert psutil.Process().memory_info().rss - before < MEMORY_BYTES
    assert metrics.registry.get_sample_value("controlplane_agent_poll_lag_seconds_count") is not None
