"""An instance asked for over the API on a host of the static pool: its agent keeps its own secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, TOKEN, AgentProcess, until

SETTINGS: dict[str, Any] = {
    "PROVIDER": "static",
    "PROVISION_READY_INTERVAL_SECONDS": "0.05",
    "PROVISION_RETRY_SECONDS": "0.05",
}


async def ended(house: ApiHouse, operation_id: str) -> Any:
    async def end() -> Any:
        operation = (await house.call("GET", f"/api/operations/{operation_id}", token=house.ada_token)).body
        return operation if operation["finished"] else None

    return await until(end, seconds=30)


@pytest.mark.gen_test(timeout=60)
async def test_a_listed_host_serves_its_customer_and_is_stopped_at_the_end(database: Database, tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "agent", LINE_GAME, *GAME_OPTIONS, "--no-start-on-boot") as agent:
        (tmp_path / "token").write_text(TOKEN + "\n")
        hosts = [
            {"name": "red", "address": "127.0.0.1", "port": int(agent.url.rsplit(":", 1)[1]), "tokenFile": "token"}
        ]
        (tmp_path / "hosts.json").write_text(json.dumps(hosts))
        async with ApiHouse(database, **SETTINGS, STATIC_HOSTS_FILE=str(tmp_path / "hosts.json")) as house:
            asked = await house.call("POST", "/api/game/servers", {"name": "Oakvale"}, token=house.ada_token)
            done = await ended(house, asked.body["operation"]["id"])
            assert done["state"] == "succeeded", done
            server = f"/api/game/servers/{done['instanceId']}"
            command = await house.call("POST", f"{server}/console/command", {"command": "help"}, token=house.ada_token)
            assert command.status == 200
            dump = [row async for row in database.collection("operations").find()]
            assert TOKEN not in repr(dump)

            second = await house.call("POST", "/api/game/servers", {"name": "Elmham"}, token=house.ada_token)
            refused = await ended(house, second.body["operation"]["id"])
            assert refused["state"] == "rolledBack"
            assert "no room" in refused["error"]["message"]

            deletion = await house.call("DELETE", server, token=house.ada_token)
            assert (await ended(house, deletion.body["operation"]["id"]))["state"] == "deleted"
            await agent.until_state("stopped")
