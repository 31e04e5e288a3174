"""How soon a revocation is felt: `python -m benchmarks.revocation [rounds]`.

Two control planes on one database. A customer holds a console, an event stream, an IDE's websocket and an access token
at the first, and signs out at the first or at the second: the time from the call to the end of each, on real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

import uvloop

from controlplane.models import AgentEndpoint, IdeMode, Instance
from controlplane.storage.database import Database
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.storage.migrations import migrate
from tests.api_house import ApiHouse
from tests.console_agent import TOKEN, ConsoleAgent
from tests.console_client import ConsoleClient
from tests.ide_house import App, IdeHouse, echo
from tests.refagent_process import until

WHAT = ("access token", "console", "events", "IDE websocket")


async def measure(house: ApiHouse, ide: IdeHouse, game: Instance, where: ApiHouse) -> list[float]:
    """Seconds until each of WHAT has ended, after a sign-out at `where`."""
    token = await house.token("ada@example.org")
    async with ConsoleClient(f"{house.url}/api/game/servers/{game.id}/console") as console:
        await console.send("auth", token=token)
        await console.named("hello")
        socket, _ = await ide.websocket(IdeMode.HOST, cookie=await ide.cookie(IdeMode.HOST, bearer=token))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]))
        writer.write(f"GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")

        async def is_refused() -> bool:
            return (await house.call("GET", "/api/auth/me", token=token)).status == 401

        async def over() -> None:
            with contextlib.suppress(ConnectionError):
                while not (await reader.read(1 << 16)).endswith(b"0\r\n\r\n"):
                    pass

        await asyncio.sleep(random.uniform(0, 2))  # else each round meets the jobs at the same moment
        began = time.perf_counter()

        async def timed(end: Awaitable[object]) -> float:
            await end
            return time.perf_counter() - began

        ends = [
            asyncio.ensure_future(timed(end))
            for end in (until(is_refused), console.closed(), over(), socket.until_closed())
        ]
        await where.call("POST", "/api/auth/logout", token=token)
        took = await asyncio.gather(*ends)
        writer.close()
    return took


async def run(rounds: int, folder: Path) -> None:
    embedded = EmbeddedServer(folder / "storage")
    database = Database(await embedded.start(), "benchmark", timeout_seconds=30)
    await migrate(database)
    print(f"{'sign-out at':<14}" + "".join(f"{what + ' p50':>20}{'max':>9}" for what in WHAT))
    async with ConsoleAgent() as agent, IdeHouse(database, App(answering=echo)) as ide, ApiHouse(database) as other:
        game = await ide.house.instance(ide.house.ada, AgentEndpoint("127.0.0.1", agent.port, TOKEN))
        await other.services.instances.sync()
        for name, where in (("the same", ide.house), ("another", other)):
            times = [await measure(ide.house, ide, game, where) for _ in range(rounds)]
            columns = list(zip(*times, strict=True))
            print(f"{name:<14}" + "".join(f"{statistics.median(each):>18.2f} s{max(each):>7.2f} s" for each in columns))
    database.close()
    await embedded.stop()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(rounds, Path(folder)))


if __name__ == "__main__":
    main()
