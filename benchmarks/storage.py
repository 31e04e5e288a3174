"""What storage costs: `python -m benchmarks.storage [AGENTS]`, against TEST_MONGODB_URI or an embedded server.

Prints a table: the time of each operation, and how long the loop was held up at most meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controlplane.models import AgentState, Connection, Instance, InstanceKind, Process, Readiness, Role, User
from controlplane.storage.agent_states import MongoAgentStateRepository
from controlplane.storage.database import Database
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.storage.instances import MongoInstanceRepository
from controlplane.storage.leases import MongoLeaseRepository
from controlplane.storage.migrations import migrate
from controlplane.storage.users import MongoUserRepository

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROBE_SECONDS = 0.001
AT_ONCE = 20


async def measure(title: str, work: Callable[[], Awaitable[object]]) -> None:
    worst = 0.0

    async def probe() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PROBE_SECONDS)
            worst = max(worst, time.perf_counter() - before - PROBE_SECONDS)

    probing = asyncio.create_task(probe())
    await asyncio.sleep(0.01)
    worst = 0.0
    started = time.perf_counter()
    await work()
    seconds = time.perf_counter() - started
    probing.cancel()
    print(f"{title:<52} {seconds * 1000:>9.1f} ms   loop held {worst * 1000:>6.1f} ms")


def state(number: int) -> AgentState:
    detail = {"players": number % 32, "memoryBytes": 1 << 30, "version": "14.1", "uptimeSeconds": number}
    return AgentState(
        f"gs_{number:06}",
        Connection.CONNECTED,
        Readiness.READY,
        True,
        Process.RUNNING,
        True,
        "ok",
        "The server is ready.",
        True,
        observed_at=NOW,
        first_seen_at=NOW,
        last_seen_at=NOW,
        last_ready_at=NOW,
        changed_at=NOW,
        revision=1,
        detail=detail,
    )


def instance(number: int) -> Instance:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return Instance(
        f"gs_{number:06}", InstanceKind.GAME, 100 + number, "Server", "usr_1", address, 8443, b"x" * 60, NOW
    )


async def in_turns(count: int, work: Callable[[int], Awaitable[object]]) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def run(database: Database, agents: int) -> None:
    await measure("migrate an empty database", lambda: migrate(database))
    await measure("migrate again (indexes are checked)", lambda: migrate(database))
    states = MongoAgentStateRepository(database)
    rows = [state(number) for number in range(agents)]
    changed = [replace(row, revision=2, ready=False) for row in rows]
    ids = [row.instance_id for row in rows]
    await measure(f"save_many, {agents:,} new states", lambda: states.save_many(rows, fence=1))
    await measure(f"save_many, {agents:,} changed states", lambda: states.save_many(changed, fence=1))
    later = NOW + timedelta(seconds=10)
    await measure(f"touch_observed, {agents:,} states", lambda: states.touch_observed(ids, later, fence=1))
    await measure(f"load_all, {agents:,} states", states.load_all)
    instances = MongoInstanceRepository(database)
    await measure(
        f"add {agents:,} instances, {AT_ONCE} at once", lambda: in_turns(agents, lambda n: instances.add(instance(n)))
    )
    await measure(f"load_all, {agents:,} instances", instances.load_all)
    moment = await database.server_now() + timedelta(minutes=1)
    await measure("changed_since, nothing new", lambda: instances.changed_since(moment))
    users = MongoUserRepository(database)
    await users.add(User("usr_1", "a@example.org", "hash", Role.CUSTOMER, NOW, NOW))
    await measure(
        f"1,000 find_by_email, {AT_ONCE} at once",
        lambda: in_turns(1_000, lambda _: users.find_by_email("a@example.org")),
    )
    leases = MongoLeaseRepository(database)
    await measure(
        f"1,000 lease renewals, {AT_ONCE} at once",
        lambda: in_turns(1_000, lambda _: leases.acquire("work", "me", ttl_seconds=30)),
    )


async def main(agents: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder) / "storage")
        uri = os.environ.get("TEST_MONGODB_URI")
        if uri is None:
            started = time.perf_counter()
            uri = await server.start()
            print(f"{'first start of the embedded server':<52} {(time.perf_counter() - started) * 1000:>9.1f} ms")
        database = Database(uri, f"bench_{secrets.token_hex(4)}", timeout_seconds=5)
        try:
            await run(database, agents)
        finally:
            await database.handle.client.drop_database(database.name)
            database.close()
            await server.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
