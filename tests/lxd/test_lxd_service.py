"""Servers asked for over the API and made on a real LXD: used, deleted, and never lost, whoever is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane.models import InstanceKind, MachineSpec
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.storage.operations import MongoOperationRepository
from controlplane.wiring.providers import make_lxd
from tests.api_house import ApiHouse
from tests.console_client import ConsoleClient
from tests.control_plane_process import SECRETS
from tests.lxd.house import IMAGE, Lxd, free_ports
from tests.refagent_process import until

pytestmark = pytest.mark.timeout(600)


def settings(lxd: Lxd, seed: Path) -> dict[str, Any]:
    return {
        "PROVIDER": "lxd",
        "LXD_URL": lxd.url,
        "LXD_GAME_IMAGE": IMAGE,
        "LXD_GAME_SEED": str(seed),
        "LXD_ADDRESS": "proxy",
        "LXD_PROXY_FIRST_PORT": str(free_ports(100)),
        "LXD_SHUTDOWN_SECONDS": "5",
        "VMID_FIRST": "10000",
        "VMID_LAST": "10049",
        "PROVISION_READY_INTERVAL_SECONDS": "0.2",
        "PROVISION_RETRY_SECONDS": "0.5",
        "PROVISION_ATTEMPTS": "50",  # a daemon that was killed is away for as long as it takes to start it
        "AGENT_TIMEOUT_SECONDS": "10",
        "AGENT_ACTION_TIMEOUT_SECONDS": "30",
    }


async def ended(house: ApiHouse, operation_id: str, seconds: float = 240) -> Any:
    async def end() -> Any:
        operation = (await house.call("GET", f"/api/operations/{operation_id}", token=house.ada_token)).body
        return operation if operation["finished"] else None

    return await until(end, seconds=seconds)


@pytest.mark.gen_test(timeout=580)
async def test_a_server_is_asked_for_used_and_deleted_without_a_trace(database: Database, lxd: Lxd, seed: Path) -> None:
    async with ApiHouse(database, **settings(lxd, seed)) as house:
        asked = await house.call("POST", "/api/game/servers", {"name": "Oakvale"}, token=house.ada_token)
        assert asked.status == 202
        done = await ended(house, asked.body["operation"]["id"])
        assert (done["state"], done["progress"]) == ("succeeded", 100), done
        server = f"/api/game/servers/{done['instanceId']}"
        instance = (await house.call("GET", server, token=house.ada_token)).body
        container = f"cp-{instance['vmid']}"
        assert lxd.names() == [container]
        assert lxd.get(f"/instances/{container}")["config"]["user.controlplane.operation"] == done["id"]

        async def is_ready() -> bool:
            state = (await house.call("GET", f"{server}/state", token=house.ada_token)).body
            return bool(state["ready"])

        await until(is_ready)

        async with ConsoleClient(f"{house.url}{server}/console") as console:
            await console.send("auth", token=house.ada_token)
            await console.until(lambda event: event["event"] == "state" and event["connected"])
            await console.send("command", id="c1", command="say hello from outside")
            assert (await console.named("commandAck"))["accepted"] is True
            await console.printed("hello from outside")

        block = bytes(range(256)) * 4096
        target = f"{server}/files/upload?path=maps/world.bin"
        uploaded = await house.call("POST", target, raw=block, token=house.ada_token)
        assert uploaded.status in (200, 201), uploaded.raw
        assert lxd.read(container, "/srv/agent/files/maps/world.bin") == block

        backup = await house.call("POST", f"{server}/backups", {"name": "before"}, token=house.ada_token)
        assert backup.status in (200, 201, 202), backup.raw
        view = await house.call("GET", f"{server}/backups?view=normalized", token=house.ada_token)
        assert [each["name"] for each in view.body["backups"]] == ["before"]

        deletion = await house.call("DELETE", server, token=house.ada_token)
        assert (await ended(house, deletion.body["operation"]["id"]))["state"] == "deleted"
        assert (await house.call("GET", server, token=house.ada_token)).status == 404
        assert lxd.names() == []
        assert await database.collection("vmids").count_documents({"operation_id": {"$exists": True}}) == 0


@pytest.mark.gen_test(timeout=580)
async def test_the_daemon_killed_in_the_middle_of_a_creation_costs_time_and_nothing_else(
    database: Database, lxd: Lxd, seed: Path
) -> None:
    async with ApiHouse(database, **settings(lxd, seed)) as house:
        asked = await house.call("POST", "/api/game/servers", {"name": "Oakvale"}, token=house.ada_token)

        async def has_begun() -> bool:
            return bool(await asyncio.to_thread(lxd.names))

        await until(has_begun)
        await asyncio.to_thread(lxd.kill)
        await asyncio.to_thread(lxd.start)
        done = await ended(house, asked.body["operation"]["id"])
        assert done["state"] == "succeeded", done
        instance = (await house.call("GET", f"/api/game/servers/{done['instanceId']}", token=house.ada_token)).body
        assert lxd.names() == [f"cp-{instance['vmid']}"]
        deletion = await house.call("DELETE", f"/api/game/servers/{done['instanceId']}", token=house.ada_token)
        assert (await ended(house, deletion.body["operation"]["id"]))["state"] == "deleted"
        assert lxd.names() == []


@pytest.mark.gen_test(timeout=580)
async def test_an_orphan_of_ours_is_removed_and_no_neighbour_is_touched(
    database: Database, lxd: Lxd, seed: Path
) -> None:
    await asyncio.to_thread(lxd.make_neighbour, "somebody-else")
    await asyncio.to_thread(lxd.make_neighbour, "cp-10001")
    theirs = {"user.controlplane.mark": "controlplane", "user.controlplane.operation": "op_anotherplane_1"}
    await asyncio.to_thread(lxd.make_neighbour, "cp-10002", **theirs)
    quick = {**settings(lxd, seed), "ORPHAN_SWEEP_SECONDS": "0.3", "ORPHAN_GRACE_SECONDS": "0.3"}
    provider = make_lxd(Settings.from_env({**SECRETS, **quick}))
    lost = f"op_{await MongoOperationRepository(database).deployment_id()}_lost"
    await provider.create(MachineSpec(10_003, lost, InstanceKind.GAME, "lost", 1, 256, 2, "a-secret-of-nobody"))
    await provider.start(10_003)
    await provider.close()
    async with ApiHouse(database, **quick) as house:

        async def is_gone() -> bool:
            return "cp-10003" not in await asyncio.to_thread(lxd.names)

        await until(is_gone)
        asked = [
            await house.call("POST", "/api/game/servers", {"name": f"Town {n}"}, token=house.ada_token)
            for n in range(2)  # the neighbours have vmids of the range: others are taken
        ]
        for each in asked:
            assert (await ended(house, each.body["operation"]["id"]))["state"] == "succeeded"
        servers = (await house.call("GET", "/api/game/servers", token=house.ada_token)).body["items"]
        ours = {f"cp-{each['vmid']}" for each in servers}
        neighbours = {"somebody-else", "cp-10001", "cp-10002"}
        assert set(lxd.names()) == ours | neighbours
        assert not ours & neighbours
        assert all(lxd.get(f"/instances/{name}/state")["status"] == "Running" for name in neighbours)
