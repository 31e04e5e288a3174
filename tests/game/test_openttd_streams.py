"""OpenTTD's console, saves and backups as a customer has them: through the control plane."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from controlplane.models import AgentEndpoint
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.console_client import ConsoleClient
from tests.game.server import openttd_agent
from tests.refagent_process import TOKEN, until

pytestmark = pytest.mark.timeout(300)

SEED = re.compile(r"Generation Seed: (\d+)")
SECONDS = 60.0


class Player:
    """Types into the console and reads what the server says to it."""

    def __init__(self, console: ConsoleClient) -> None:
        self._console = console
        self._number = 0

    async def type(self, command: str, answer: str, seconds: float = SECONDS) -> str:
        """The output from the command on, until the answer's pattern is in it."""
        self._number += 1
        number, begin = self._number, len(self._console.events)
        await self._console.send("command", id=number, command=command)

        def output() -> str:
            new = self._console.events[begin:]
            return "\n".join(event["data"] for event in new if event["event"] == "output")

        acknowledgement = await self._console.until(
            lambda event: event["event"] == "commandAck" and event["id"] == number
        )
        assert acknowledgement["accepted"], acknowledgement
        await self._console.until(lambda _event: re.search(answer, output()) is not None, seconds)
        return output()

    async def seed(self) -> int:
        """What tells one map from another. Asked again where a server that was loading did not hear it."""
        async with asyncio.timeout(SECONDS):
            while True:
                with contextlib.suppress(TimeoutError):
                    found = SEED.search(await self.type("getseed", SEED.pattern, 2))
                    assert found is not None
                    return int(found.group(1))

    async def until_seed(self, seed: int) -> None:
        """Until the server has loaded that map."""
        async with asyncio.timeout(SECONDS):
            while True:
                if await self.seed() == seed:
                    return
                await asyncio.sleep(0.5)  # commands are limited a second


@pytest.mark.gen_test(timeout=290)
async def test_a_save_a_backup_a_new_map_and_a_restore_bring_the_old_map_back(
    database: Database, tmp_path: Path
) -> None:
    with openttd_agent(tmp_path) as agent:
        await agent.until_ready(60)
        async with ApiHouse(database, AGENT_ACTION_TIMEOUT_SECONDS="30") as house:
            port = int(agent.url.rpartition(":")[2])
            instance = await house.instance(house.ada, AgentEndpoint("127.0.0.1", port, TOKEN))
            base = f"/api/game/servers/{instance.id}"
            async with ConsoleClient(f"{house.url}{base}/console") as console:
                await console.send("auth", token=house.ada_token)
                await console.printed("Map generated, starting game")
                await console.until(lambda event: event["event"] == "state" and event["connected"])
                player = Player(console)
                old_map = await player.seed()
                await player.type("save kept", "successfully saved to 'kept.sav'")
                backup = await house.call("POST", f"{base}/backups", {"name": "old map"}, token=house.ada_token)
                assert backup.status == 201, backup.raw

                await player.type(f"newgame {old_map ^ 1}", "Map generated, starting game")
                await player.until_seed(old_map ^ 1)
                await player.type("save kept", "successfully saved to 'kept.sav'")

                target = f"{base}/backups/restore?id={backup.body['id']}"
                restored = await house.call("POST", target, token=house.ada_token)
                assert restored.status == 200, restored.raw

                async def is_ready() -> bool:
                    state = (await house.call("GET", f"{base}/state", token=house.ada_token)).body
                    return bool(state["ready"])

                await until(is_ready, seconds=SECONDS)
                await player.seed()  # it has started, on whichever map its settings say, which are in no backup
                await player.type(f"newgame {old_map ^ 2}", "Map generated, starting game")
                await player.until_seed(old_map ^ 2)
                await player.type("load kept", "Listening on")
                await player.until_seed(old_map)
