"""Programs that the storage tests run as processes of their own, and waiting for what they do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from controlplane.storage.database import Database
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.storage.leases import MongoLeaseRepository
from controlplane.storage.migrations import migrate

_T = TypeVar("_T")
ROOT = Path(__file__).resolve().parents[3]


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.contract.storage.processes", name, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


async def eventually(check: Callable[[], Awaitable[_T | None]], seconds: float = 60) -> _T:
    """What `check` gives once it gives something."""
    async with asyncio.timeout(seconds):
        while True:
            found = await check()
            if found:
                return found
            await asyncio.sleep(0.01)


async def compete(uri: str, database_name: str, owner: str, turns: str) -> None:
    """Take a lease, tell its fence, work under it, give it back; `turns` times. The work is a counter that is read
    and written in two steps: it counts right only when nobody else is at it."""
    database = Database(uri, database_name, timeout_seconds=30)
    leases = MongoLeaseRepository(database)
    counters = database.collection("counters")
    for _ in range(int(turns)):
        lease = None
        while lease is None:
            lease = await leases.acquire("work", owner, ttl_seconds=30)
        row: Any = await counters.find_one({"_id": "work"})
        assert await leases.is_current("work", owner, lease.fence)
        await counters.update_one({"_id": "work"}, {"$set": {"value": row["value"] + 1}})
        print(lease.fence)
        await leases.release("work", owner)
    database.close()


async def hold(uri: str, database_name: str, owner: str) -> None:
    """Take a lease and hang."""
    database = Database(uri, database_name, timeout_seconds=30)
    lease = await MongoLeaseRepository(database).acquire("work", owner, ttl_seconds=600)
    assert lease is not None
    print(lease.fence)
    await asyncio.Event().wait()


async def bring_up_to_date(uri: str, database_name: str) -> None:
    database = Database(uri, database_name, timeout_seconds=30)
    await migrate(database)
    database.close()
    print("migrated")


async def serve(folder: str) -> None:
    """Start the embedded server, tell its process id and its connection string, and hang."""
    server = EmbeddedServer(Path(folder))
    uri = await server.start()
    print(server.process_id)
    print(uri)
    await asyncio.Event().wait()


PROGRAMS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "compete": compete,
    "hold": hold,
    "migrate": bring_up_to_date,
    "serve": serve,
}

if __name__ == "__main__":
    asyncio.run(PROGRAMS[sys.argv[1]](*sys.argv[2:]))
