"""What polling costs: `python -m benchmarks.poll [AGENTS …] [--interval S] [--broken PERCENT] [--seconds S]`.

The poller, its cache and its transport as in the service, against agents behind real sockets in another process: three
GETs a poll, paced by the schedule, an address of 127.0.0.0/8 and so connections of its own for each agent.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import random
import resource
import statistics
import time

import uvloop

from controlplane.agents.cache import StateCache
from controlplane.agents.client import AgentClient
from controlplane.agents.http_connection import HttpTransport
from controlplane.agents.poller import Poller, PollTarget
from controlplane.clock import SystemClock
from controlplane.models import AgentEndpoint
from controlplane.observability.loop_lag import LoopLag
from controlplane.observability.metrics import Metrics
from tests.fakes import FakeStateRepository

TICK_SECONDS = 0.05
PORTS = 8
ANSWERS = {
    b"/health": b'{"status": "ok"}',
    b"/ready": b'{"ready": true}',
    b"/status": b'{"state": "running", "version": "1.21.4", "uptimeSeconds": 86400, '
    b'"players": {"online": 7, "max": 20}, "cpuPercent": 37.5, '
    b'"memory": {"usedBytes": 2147483648, "limitBytes": 4294967296}}',
}
REPLIES = {
    path: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for path, body in ANSWERS.items()
}


class Healthy(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(REPLIES[data.split(b" ", 2)[1]])  # type: ignore[attr-defined]


class Silent(asyncio.Protocol):
    """Accepts, and never answers."""


def serve(pipe: multiprocessing.connection.Connection) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        healthy = [await loop.create_server(Healthy, "0.0.0.0", 0, backlog=4096) for _ in range(PORTS)]
        silent = await loop.create_server(Silent, "0.0.0.0", 0, backlog=4096)
        pipe.send(([each.sockets[0].getsockname()[1] for each in healthy], silent.sockets[0].getsockname()[1]))
        await asyncio.to_thread(pipe.recv)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def measure(agents: int, broken: float, interval: float, seconds: float, ports: list[int], silent: int) -> str:
    metrics, clock = Metrics(), SystemClock()
    cache = StateCache(FakeStateRepository(), clock)
    transport = HttpTransport(check_dial=lambda _address: None)
    client = AgentClient(
        transport, poll_timeout_seconds=5, action_timeout_seconds=5, backup_timeout_seconds=5, body_limit_bytes=1 << 20
    )
    poller = Poller(
        client, cache, clock, metrics, interval_seconds=interval, concurrency=256, random=random.Random(1).random
    )
    lag = LoopLag(metrics.loop_lag_seconds)
    for number in range(agents):
        port = silent if number < agents * broken / 100 else ports[number % PORTS]
        poller.watch(PollTarget(str(number), AgentEndpoint(_address(number), port, f"token-{number}")))

    async def run_for(duration: float) -> None:
        end = time.monotonic() + duration
        while time.monotonic() < end:
            await poller.run_once()
            await asyncio.sleep(TICK_SECONDS)

    await run_for(1.5 * interval)
    lag.start()

    def polls() -> float:
        return sum(
            metrics.registry.get_sample_value("controlplane_agent_polls_total", {"outcome": each}) or 0
            for each in ("answered", "failed")
        )

    before, cpu_before, began = polls(), _cpu_seconds(), time.perf_counter()
    ages: list[float] = []
    for _ in range(max(1, round(seconds))):
        await run_for(1)
        now = clock.now()
        for number in range(int(agents * broken / 100), agents):
            observed = cache.get(str(number)).observed_at
            ages.append((now - observed).total_seconds() if observed else 1e9)
    took, cpu, done = time.perf_counter() - began, _cpu_seconds() - cpu_before, polls() - before
    lag.stop()
    worst = lag.worst_seconds
    open_connections = transport.open_connections
    await poller.drain()
    await transport.close()
    ages.sort()
    cells = (
        f"{agents}",
        f"{broken:.0f}%",
        f"{done / took:.0f}",
        f"{1e6 * cpu / done:.0f} µs",
        f"{100 * cpu / took:.1f}%",
        f"{statistics.median(ages):.2f} s",
        f"{ages[int(len(ages) * 0.99)]:.2f} s",
        f"{1000 * worst:.1f} ms",
        f"{open_connections}",
    )
    return "".join(f"{cell:>11}" for cell in cells)


def _address(number: int) -> str:
    return f"127.{1 + number // 65536}.{number // 256 % 256}.{number % 256}"


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("agents", type=int, nargs="*", default=[1000, 5000])
    parser.add_argument("--interval", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--broken", type=float, default=2, help="percent that accept and never answer, in a second row")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16), hard))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,))
    server.start()
    ports, silent = ours.recv()
    titles = ("agents", "silent", "polls/s", "CPU/poll", "of a core", "stale p50", "stale p99", "lag max", "sockets")
    print(f"interval {given.interval:g} s, {given.seconds:g} s measured")
    print("".join(f"{title:>11}" for title in titles))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for agents in given.agents:
            for broken in (0.0, given.broken):
                print(runner.run(measure(agents, broken, given.interval, given.seconds, ports, silent)), flush=True)
    ours.send("stop")
    server.join(20)


if __name__ == "__main__":
    main()
