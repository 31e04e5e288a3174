"""The whole service on a Proxmox that refuses each call in turn, times out after having done the work, or returns a
failed task: the right end state, nothing left, and words for the customer and for the operator."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.proxmox_server import TOKEN, ProxmoxServer
from tests.refagent_process import until

pytestmark = pytest.mark.timeout(300)

FIRST_VMID = 10_000
DEFINITE = ("unauthorized", "forbidden", "refused", "task")
HOW = ("unauthorized", "forbidden", "refused", "locked", "gateway", "dropped", "lost", "garbage")


class Containers:
    """What runs in the cluster's containers: an agent at 127.0.0.10 and on, one a vmid, that takes the secret of its
    container's environment and no other."""

    def __init__(self, cluster: ProxmoxServer) -> None:
        containers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                vmid = FIRST_VMID - 10 + int(self.connection.getsockname()[0].rsplit(".", 1)[1])
                guest = cluster.guests.get(vmid)
                if guest is None or not guest.running:
                    self.close_connection = True
                    return
                environment = dict(each.split("=", 1) for each in guest.config.get("env", "").split("\0"))
                is_known = self.headers.get("Authorization") == f"Bearer {environment.get('AGENT_TOKEN')}"
                body = json.dumps({"ready": containers.ready, "state": "running"}).encode()
                self.send_response(200 if is_known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Says nothing."""

        self.ready = True
        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="containers")
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProxmoxServer]:
    with ProxmoxServer(tmp_path) as running:
        for template in (9000, 9001):
            running.guests[template].config["rootfs"] = "local-lvm:base-disk-0,size=2G"
        yield running


@pytest.fixture
def containers(cluster: ProxmoxServer) -> Iterator[Containers]:
    made = Containers(cluster)
    yield made
    made.close()


IMPATIENT: dict[str, Any] = {"PROXMOX_CALL_SECONDS": "4"}
"""Where calls get no answer. One that a busy machine holds up so long is made again, as any other that is not definite;
but each time later than the time before."""


def settings(cluster: ProxmoxServer, containers: Containers) -> dict[str, Any]:
    return {
        "PROVIDER": "proxmox",
        "PROXMOX_URL": cluster.url,
        "PROXMOX_TOKEN": TOKEN,
        "PROXMOX_CA_FILE": str(cluster.ca_file),
        "PROXMOX_GAME_TEMPLATES": "9000,9001",
        "PROXMOX_DEV_TEMPLATES": "9001",
        "PROXMOX_SUBNET": "127.0.0.0/24",
        "PROXMOX_GATEWAY": "127.0.0.1",
        "PROXMOX_AGENT_PORT": str(containers.port),
        "PROXMOX_CALL_SECONDS": "10",
        "PROXMOX_TASK_SECONDS": "10",
        "PROVISION_ATTEMPTS": "20",
        "VMID_FIRST": str(FIRST_VMID),
        "VMID_LAST": str(FIRST_VMID + 200),
        "PROVISION_READY_INTERVAL_SECONDS": "0.01",
        "PROVISION_READY_CHECKS": "2",
        "PROVISION_RETRY_SECONDS": "0.02",
        "QUOTA_GAME_SERVERS": "1000",
        "AGENT_POLL_INTERVAL_SECONDS": "3600",
        "ORPHAN_SWEEP_SECONDS": "3600",
    }


class Desk:
    """A customer and an administrator at one house."""

    def __init__(self, house: ApiHouse, cluster: ProxmoxServer) -> None:
        self.house = house
        self.cluster = cluster

    async def order(self) -> Any:
        asked = await self.house.call("POST", "/api/game/servers", {"name": "Oakvale"}, token=self.house.ada_token)
        return await self.ended(asked.body["operation"]["id"])

    async def remove(self, instance_id: str) -> Any:
        target = f"/api/game/servers/{instance_id}"
        asked = await self.house.call("DELETE", target, token=self.house.ada_token)
        return await self.ended(asked.body["operation"]["id"])

    async def ended(self, operation_id: str) -> Any:
        async def end() -> Any:
            operation = await self.house.call("GET", f"/api/operations/{operation_id}", token=self.house.ada_token)
            return operation.body if operation.body["finished"] else None

        return await until(end, seconds=120)

    async def as_operator(self, operation_id: str) -> Any:
        listed = await self.house.call("GET", "/api/admin/operations?limit=200", token=self.house.root_token)
        return next(each for each in listed.body["items"] if each["id"] == operation_id)

    def containers(self) -> list[int]:
        return [vmid for vmid in tuple(self.cluster.guests) if vmid >= FIRST_VMID]

    def fail(self, call: str, how: str) -> None:
        self.cluster.fail(call, how, times=2 if how == "dropped" else 1)


CALLS = ("resources", "nextid", "clone", "config", "status", "configure", "resize", "start", "task")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.gen_test(timeout=280)
async def test_a_call_that_fails_once_ends_in_a_server_or_in_nothing(
    database: Database, cluster: ProxmoxServer, containers: Containers, call: str
) -> None:
    hows = [how for how in (*HOW, "task") if how != "task" or call in ("clone", "resize", "start")]
    async with ApiHouse(database, **{**settings(cluster, containers), **IMPATIENT}) as house:
        desk = Desk(house, cluster)
        for how in hows:
            desk.fail(call, how)
            done = await desk.order()
            cluster.heal()
            if done["state"] == "succeeded":
                assert len(desk.containers()) == 1, how
                assert (await desk.remove(done["instanceId"]))["state"] == "deleted"
            else:
                assert (done["state"], how in DEFINITE) == ("rolledBack", True), (how, done)
                assert re.fullmatch(r"[A-Z][a-z ,]+\.", done["error"]["message"]), how
                error = (await desk.as_operator(done["id"]))["error"]
                assert re.search(r"/cluster/|/nodes/|UPID:", error["operatorMessage"]), error
            assert desk.containers() == [], how
            listed = await house.call("GET", "/api/game/servers", token=house.ada_token)
            assert listed.body["items"] == []


@pytest.mark.parametrize("call", ["config", "shutdown", "stop", "destroy"])
@pytest.mark.gen_test(timeout=280)
async def test_a_deletion_that_fails_once_is_carried_through(
    database: Database, cluster: ProxmoxServer, containers: Containers, call: str
) -> None:
    hows = [how for how in (*HOW, "task") if how != "task" or call != "config"]
    async with ApiHouse(database, **{**settings(cluster, containers), **IMPATIENT}) as house:
        desk = Desk(house, cluster)
        for how in hows:
            done = await desk.order()
            if call == "stop":
                cluster.guests[desk.containers()[0]].stubborn = True
            desk.fail(call, how)
            deletion = await desk.remove(done["instanceId"])
            cluster.heal()
            if deletion["state"] == "failed":
                error = (await desk.as_operator(deletion["id"]))["error"]
                assert re.search(r"/nodes/|UPID:", error["operatorMessage"]), (how, error)
                target = f"/api/admin/operations/{deletion['id']}/retry"
                assert (await house.call("POST", target, token=house.root_token)).status in (200, 202)
                deletion = await desk.ended(deletion["id"])
            assert deletion["state"] == "deleted", (how, deletion)
            assert desk.containers() == [], how


@pytest.mark.gen_test(timeout=60)
async def test_an_agent_that_never_gets_ready_is_rolled_back(
    database: Database, cluster: ProxmoxServer, containers: Containers
) -> None:
    containers.ready = False
    given = {**settings(cluster, containers), "PROVISION_READY_SECONDS": "0.5"}
    async with ApiHouse(database, **given) as house:
        desk = Desk(house, cluster)
        done = await desk.order()
        assert (done["state"], done["error"]["code"]) == ("rolledBack", "ready_timeout")
        assert desk.containers() == []


@pytest.mark.gen_test(timeout=60)
async def test_what_cannot_be_taken_back_is_left_for_an_administrator_who_is_told_where(
    database: Database, cluster: ProxmoxServer, containers: Containers
) -> None:
    undo: dict[str, Any] = {"PROVISION_UNDO_ATTEMPTS": "2"}
    async with ApiHouse(database, **settings(cluster, containers), **undo) as house:
        desk = Desk(house, cluster)
        cluster.fail("start", "task", times=99)
        cluster.fail("destroy", "forbidden", times=99)
        done = await desk.order()
        assert done["state"] == "rollbackFailed"
        (vmid,) = desk.containers()
        operation = await desk.as_operator(done["id"])
        assert str(vmid) in json.dumps(operation)
        assert "VM.Allocate" in json.dumps(operation)
        cluster.heal()
        target = f"/api/admin/operations/{done['id']}/retry"
        assert (await house.call("POST", target, token=house.root_token)).status in (200, 202)
        assert (await desk.ended(done["id"]))["state"] == "rolledBack"
        assert desk.containers() == []


@pytest.mark.gen_test(timeout=280)
async def test_twenty_servers_at_once_have_twenty_vmids_and_serve(
    database: Database, cluster: ProxmoxServer, containers: Containers
) -> None:
    async with ApiHouse(database, **settings(cluster, containers), OPERATIONS_PER_USER="100") as house:
        desk = Desk(house, cluster)
        asked = [
            await house.call("POST", "/api/game/servers", {"name": f"Town {n}"}, token=house.ada_token)
            for n in range(20)
        ]
        ended = [await desk.ended(each.body["operation"]["id"]) for each in asked]
        assert [each["state"] for each in ended] == ["succeeded"] * 20
        assert len(desk.containers()) == 20
