"""Server-sent events over the real application and a raw socket, as a browser reads them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from controlplane.events import EventKind
from controlplane.models import Instance, Suspension
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.broken_agents import SocketAgent, says
from tests.refagent_process import until

pytestmark = pytest.mark.timeout(120)

SLOW_SECONDS = 5.0
"""Longer than a busy machine may keep this process from reading."""


@dataclass(frozen=True, slots=True)
class Received:
    id: str | None
    event: str
    data: Any


class EventStream:
    """An open `/api/events`; `head` is the answer's first part."""

    def __init__(self, reader: asyncio.StreamReader, head: str) -> None:
        self._reader = reader
        self._text = ""
        self.head = head

    async def silence_is_broken(self) -> None:
        """By a comment, which is no event."""
        async with asyncio.timeout(20):
            while ": keepalive\n\n" not in self._text:
                self._text += await self._chunk()

    async def next(self, seconds: float = 20) -> Received:
        """The next event; comments and the retry hint are passed over."""
        async with asyncio.timeout(seconds):
            while True:
                block, found, rest = self._text.partition("\n\n")
                if not found:
                    self._text += await self._chunk()
                    continue
                self._text = rest
                fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
                if "event" in fields:
                    return Received(fields.get("id"), fields["event"], json.loads(fields["data"]))

    async def named(self, name: str) -> Received:
        while (received := await self.next()).event != name:
            pass
        return received

    async def ended(self, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            await self._reader.readuntil(b"0\r\n\r\n")

    async def breaks_off(self) -> None:
        """Without the end that HTTP asks for."""
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                assert not (await self._reader.read()).endswith(b"\r\n0\r\n\r\n")

    async def _chunk(self) -> str:
        size = int(await self._reader.readline(), 16)
        assert size, "the stream ended"
        return (await self._reader.readexactly(size + 2))[:-2].decode()


@asynccontextmanager
async def events(house: ApiHouse, token: str, last: str | None = None) -> AsyncIterator[EventStream]:
    port = int(house.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    extra = "" if last is None else f"Last-Event-ID: {last}\r\n"
    writer.write(
        f"GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{extra}\r\n".encode("latin-1")
    )
    try:
        yield EventStream(reader, (await reader.readuntil(b"\r\n\r\n")).decode())
    finally:
        writer.transport.abort()


def is_connected(instance: Instance, received: Received) -> bool:
    return (
        received.event == "state"
        and received.data["id"] == instance.id
        and received.data["state"]["connection"] == "connected"
    )


@pytest.mark.gen_test(timeout=60)
async def test_a_stream_begins_with_a_snapshot_and_changes_follow(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent() as agent:
        first = await house.instance(house.ada)
        await house.instance(house.bob)
        async with events(house, house.ada_token) as stream:
            assert "200 OK" in stream.head
            assert "Content-Type: text/event-stream" in stream.head
            snapshot = await stream.next()
            assert (snapshot.event, snapshot.data["complete"]) == ("snapshot", True)
            assert [item["id"] for item in snapshot.data["items"]] == [first.id]
            second = await house.instance(house.ada, agent.endpoint)
            while not is_connected(second, received := await stream.next()):
                assert received.data["id"] in (first.id, second.id)
            assert set(received.data) == {"id", "kind", "vmid", "name", "ownerId", "createdAt", "state"}


@pytest.mark.gen_test(timeout=60)
async def test_a_reconnection_gets_what_it_missed_and_no_snapshot(database: Database) -> None:
    async with ApiHouse(database, AGENT_POLL_INTERVAL_SECONDS="600") as house:
        async with events(house, house.ada_token) as stream:
            cursor = (await stream.next()).id
        missed = await house.instance(house.ada)
        async with events(house, house.ada_token, cursor) as stream:
            received = await stream.next()
            assert (received.event, received.data["id"]) == ("state", missed.id)
        async with events(house, house.ada_token, "0123-7") as stream:
            assert (await stream.next()).data == {"reason": "restarted"}
            assert [item["id"] for item in (await stream.next()).data["items"]] == [missed.id]


@pytest.mark.gen_test(timeout=60)
async def test_a_snapshot_of_many_comes_in_pages(database: Database) -> None:
    async with ApiHouse(database, AGENT_POLL_INTERVAL_SECONDS="600") as house:
        await asyncio.gather(*(house.instance(house.ada) for _ in range(201)))
        async with events(house, house.ada_token) as stream:
            first, second = await stream.next(), await stream.next()
            assert (len(first.data["items"]), first.data["complete"], first.id) == (200, False, None)
            assert (len(second.data["items"]), second.data["complete"]) == (1, True)
            assert second.id is not None


@pytest.mark.gen_test(timeout=60)
async def test_a_suspension_and_a_backup_are_told(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent(says(b'{"id": "b7"}', "/game/backups")) as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        async with events(house, house.ada_token) as stream:
            await stream.next()
            await house.call("POST", f"/api/game/servers/{instance.id}/backups", token=house.ada_token)
            told = await stream.named("backup")
            assert told.data == {"instanceId": instance.id, "action": "created", "backupId": "b7"}
            suspension = Suspension("unpaid", house.services.clock.now())
            await house.services.instances.set_suspension(instance.id, suspension)
            while not (received := await stream.named("state")).data["state"]["suspension"]:
                pass
            assert received.data["state"]["suspension"]["reason"] == "unpaid"


@pytest.mark.gen_test(timeout=60)
async def test_a_logout_ends_the_stream_and_so_does_the_end_of_the_process(database: Database) -> None:
    async with ApiHouse(database) as house:
        token = await house.token("ada@example.org")
        async with events(house, token) as stream, events(house, house.ada_token) as other:
            await stream.next()
            await other.next()
            await house.call("POST", "/api/auth/logout", token=token)
            await stream.ended()
            draining = asyncio.create_task(house.server.drain(limit_seconds=10))
            await other.ended()
            await draining
            assert house.services.lifecycle.requests_under_way == 0


@pytest.mark.gen_test(timeout=60)
async def test_a_quiet_stream_is_kept_open_by_comments(database: Database) -> None:
    async with ApiHouse(database) as house:
        house.services.events.keepalive_seconds = 0.05
        async with events(house, house.ada_token) as stream:
            await stream.next()
            await stream.silence_is_broken()


@pytest.mark.gen_test(timeout=60)
async def test_a_client_that_never_reads_is_cut_off_and_the_others_are_not(database: Database) -> None:
    async with (
        ApiHouse(database, AGENT_POLL_INTERVAL_SECONDS="600") as house,
        events(house, house.ada_token) as slow,
        events(house, house.ada_token) as quick,
    ):
        hub = house.services.events
        hub.slow_seconds = SLOW_SECONDS
        await quick.next()
        instance = await house.instance(house.ada)
        large = b'{"pad":"%b"}' % (b"x" * 500_000)
        for _ in range(64):  # more than the sockets' buffers hold
            hub.publish(EventKind.BACKUP, house.ada.id, large)
            await quick.named("backup")

        async def is_cut_off() -> bool:
            return len(hub._subscriptions) == 1

        await until(is_cut_off)
        hub.publish(EventKind.BACKUP, house.ada.id, b'{"instanceId":"%b"}' % instance.id.encode())
        assert (await quick.named("backup")).data == {"instanceId": instance.id}
        await slow.breaks_off()


@pytest.mark.gen_test(timeout=60)
async def test_a_client_that_goes_away_leaves_nothing_behind(database: Database) -> None:
    async with ApiHouse(database) as house:
        async with events(house, house.ada_token) as stream:
            await stream.next()
            assert house.services.lifecycle.requests_under_way == 1
        async with asyncio.timeout(10):
            await house.services.lifecycle.until_idle()
        assert not house.services.events._subscriptions
