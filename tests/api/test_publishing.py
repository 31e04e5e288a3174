"""What the outside is told: the edge's routes with their own token, and webhooks that reach a real receiver."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from controlplane.models import DeliveryState, Instance, InstanceKind
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.refagent_process import until

EDGE_TOKEN = "rT5wQ9zXc2Vb7Nm1Kj4Hg8Fd3Sa6Pl0o"
EDGE: dict[str, Any] = {"EDGE_TOKEN": EDGE_TOKEN, "DEV_IDE_HOST_SUFFIX": "ide.example"}


class Receiver:
    """A webhook's receiver: keeps what was posted, and tells when there is more."""

    def __init__(self) -> None:
        self.posted: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/in"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, _, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        self.posted.put_nowait((headers, body))

    def stop(self) -> None:
        self._server.close()


async def routes(house: ApiHouse) -> Any:
    answer = await house.call("GET", "/edge/traefik.json", token=EDGE_TOKEN)
    assert answer.status == 200
    return answer.body


@pytest.mark.gen_test(timeout=60)
async def test_the_edge_sees_what_is_published_and_loses_what_is_withdrawn_or_suspended(database: Database) -> None:
    async with ApiHouse(database, **EDGE) as house:
        dev = await house.instance(house.ada, kind=InstanceKind.DEV)
        game = await house.instance(house.ada)
        target = f"/api/admin/instances/{game.id}"
        changed = await house.call("PATCH", target, {"gamePort": 25565}, token=house.root_token)
        assert (changed.body["gamePort"], changed.body["published"]) == (25565, True)
        found = await routes(house)
        assert list(found["http"]["routers"]) == [f"dev-{dev.vmid}"]
        assert found["udp"]["services"][f"game-{game.vmid}-udp"]["loadBalancer"]["servers"] == [
            {"address": "127.0.0.1:25565"}
        ]
        await house.services.publisher.withdraw(dev)
        assert list(await routes(house)) == ["tcp", "udp"]
        await house.call("POST", f"{target}/suspend", {"reason": "unpaid"}, token=house.root_token)
        assert await routes(house) == {}
        await house.services.publisher.publish(dev)
        assert list(await routes(house)) == ["http"]


@pytest.mark.gen_test(timeout=60)
async def test_the_edges_routes_want_the_edges_token(database: Database) -> None:
    async with ApiHouse(database, **EDGE) as house:
        assert (await house.call("GET", "/edge/traefik.json")).code == "token_missing"
        for token in ("wrong", house.root_token):
            assert (await house.call("GET", "/edge/traefik.json", token=token)).code == "token_invalid"
    async with ApiHouse(database) as house:
        assert (await house.call("GET", "/edge/traefik.json", token=EDGE_TOKEN)).code == "not_found"


@pytest.mark.gen_test(timeout=60)
async def test_a_webhook_is_made_told_listed_replayed_and_removed(database: Database) -> None:
    receiver = Receiver()
    url = await receiver.start()
    async with ApiHouse(database) as house:
        root = house.root_token
        body = {"url": url, "events": ["instance.ready", "instance.withdrawn", "instance.deleted"]}
        made = await house.call("POST", "/api/admin/webhooks", body, token=root)
        assert made.status == 201
        secret = made.body.pop("secret")
        listed = await house.call("GET", "/api/admin/webhooks", token=root)
        assert "secret" not in listed.body["items"][0]
        assert listed.body["items"][0]["url"] == url

        instance: Instance = await house.instance(house.ada)
        publisher = house.services.publisher
        await publisher.withdraw(instance)
        await publisher.publish(instance)
        await publisher.retire(instance)
        posted = [await receiver.posted.get() for _ in range(3)]
        told = {json.loads(raw)["type"] for _, raw in posted}
        assert told == {"instance.withdrawn", "instance.ready", "instance.deleted"}
        for headers, raw in posted:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + raw
            key = base64.b64decode(secret.removeprefix("whsec_"))
            expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
            assert headers["webhook-signature"] == f"v1,{expected}"

        async def all_are_recorded() -> bool:
            listed = await house.services.webhooks.page(state=DeliveryState.DELIVERED, limit=10, after=None)
            return len(listed) == 3

        await until(all_are_recorded)
        deliveries = await house.call("GET", "/api/admin/webhook-deliveries?limit=2", token=root)
        first, second = deliveries.body["items"]
        assert deliveries.body["nextAfter"] == second["id"]
        replayed = await house.call("POST", f"/api/admin/webhook-deliveries/{first['id']}/replay", token=root)
        assert (replayed.status, replayed.body["state"]) == (202, "pending")
        headers, _ = await receiver.posted.get()
        assert headers["webhook-id"] == first["eventId"]

        webhook = f"/api/admin/webhooks/{made.body['id']}"
        assert (await house.call("DELETE", webhook, token=root)).status == 204
        assert (await house.call("DELETE", webhook, token=root)).code == "not_found"
        again = await house.call("POST", f"/api/admin/webhook-deliveries/{first['id']}/replay", token=root)
        assert again.code == "webhook_disabled"
    receiver.stop()


@pytest.mark.gen_test(timeout=60)
async def test_publishing_what_is_published_changes_nothing_and_announces_once(database: Database) -> None:
    async with ApiHouse(database) as house:
        body = {"url": "http://127.0.0.1:9/in", "events": ["instance.ready"]}
        await house.call("POST", "/api/admin/webhooks", body, token=house.root_token)
        instance = await house.instance(house.ada)
        for _ in range(3):
            await house.services.publisher.publish(instance)
        known = house.services.instances.get(instance.id)
        assert known is not None
        assert known.revision == instance.revision
        assert len(await house.services.webhooks.page(state=None, limit=10, after=None)) == 1
