"""Instances asked for over the API, made of real agents by the local provider, used, and deleted again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.storage.database import Database
from tests.api_house import Answer, ApiHouse
from tests.refagent_process import until

pytestmark = pytest.mark.timeout(120)

FAST = {
    "PROVIDER": "local",
    "LOCAL_PROVIDER_DIE_WITH_PARENT": "true",
    "PROVISION_READY_INTERVAL_SECONDS": "0.05",
    "PROVISION_RETRY_SECONDS": "0.05",
    "OPERATION_LEASE_SECONDS": "2",
}


def house_with(database: Database, folder: Path, **settings: str) -> ApiHouse:
    return ApiHouse(database, **{**FAST, "LOCAL_PROVIDER_DIR": str(folder), **settings})


def machines_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if not each.name.startswith(".lock")]


async def ask(house: ApiHouse, name: str = "Oakvale", *, key: str | None = None, **body: Any) -> Answer:
    return await house.call(
        "POST",
        "/api/game/servers",
        {"name": name, **body},
        token=house.ada_token,
        headers={} if key is None else {"Idempotency-Key": key},
    )


async def finished(house: ApiHouse, operation_id: str) -> Any:
    async def end() -> Any:
        operation = (await house.call("GET", f"/api/operations/{operation_id}", token=house.ada_token)).body
        return operation if operation["finished"] else None

    return await until(end, seconds=30)


async def provisioned(house: ApiHouse, **body: Any) -> dict[str, Any]:
    asked = await ask(house, **body)
    assert asked.status == 202, asked.raw
    operation: dict[str, Any] = await finished(house, asked.body["operation"]["id"])
    assert operation["state"] == "succeeded", operation
    return operation


@pytest.mark.gen_test(timeout=90)
async def test_a_server_is_asked_for_gets_ready_is_used_and_is_deleted_without_a_trace(
    database: Database, tmp_path: Path
) -> None:
    async with house_with(database, tmp_path) as house:
        asked = await ask(house)
        assert asked.status == 202
        operation = asked.body["operation"]
        assert set(operation) >= {"id", "kind", "state", "steps", "instanceId", "error", "createdAt", "updatedAt"}
        assert (operation["kind"], operation["state"]) == ("provision", "requested")
        server = f"/api/game/servers/{operation['instanceId']}"
        assert (await house.call("GET", server, token=house.ada_token)).status == 404

        done = await finished(house, operation["id"])
        assert (done["state"], done["progress"], done["error"]) == ("succeeded", 100, None)
        assert [step["state"] for step in done["steps"]] == ["done"] * 8
        instance = (await house.call("GET", server, token=house.ada_token)).body
        assert (instance["name"], instance["ownerId"]) == ("Oakvale", house.ada.id)
        command = await house.call("POST", f"{server}/console/command", {"command": "help"}, token=house.ada_token)
        assert command.status == 200
        assert (await house.call("GET", server, token=house.bob_token)).status == 404

        deletion = await house.call("DELETE", server, token=house.ada_token)
        assert deletion.status == 202
        assert (await finished(house, deletion.body["operation"]["id"]))["state"] == "deleted"
        assert (await house.call("GET", server, token=house.ada_token)).status == 404
        assert machines_in(tmp_path) == []
        assert await database.collection("vmids").count_documents({"operation_id": {"$exists": True}}) == 0
