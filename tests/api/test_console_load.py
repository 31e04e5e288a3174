"""Consoles under load, over the real application and real sockets: viewers that never read, agents that never stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

from controlplane.models import AgentEndpoint, Instance
from controlplane.proxying.console_hub import SCROLLBACK_BYTES
from controlplane.proxying.scrollback import OUTPUT_LIMIT_CHARACTERS
from controlplane.proxying.upgrade import open_websocket
from controlplane.proxying.websocket import WRITE_HIGH_BYTES, WebSocket
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.console_agent import ConsoleAgent
from tests.console_client import ConsoleClient
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, TOKEN, AgentProcess, python

pytestmark = pytest.mark.timeout(120)

TLS = ssl.create_default_context()
READERS = 50
BATCH = 500
LINE_LIMIT = 100_000
"""More lines than the kernel's buffers, a viewer's own and the scrollback hold together."""

FLOOD_LINES = 200_000
FLOOD = python(
    """
import sys
block = "[12:00:00] [Server thread/INFO]: a line as games print them\\n" * 1000
print("World ready")
while True:
    sys.stdout.write(block)
"""
)


class Reader(WebSocket):
    """A viewer that checks that each output follows the one before, but for the gaps that are declared."""

    def __init__(self) -> None:
        super().__init__(is_client=True, message_limit_bytes=8 << 20)
        self.seq = 0
        self.lines = 0
        self.gaps: list[dict[str, Any]] = []
        self.told: dict[str, Any] = {}
        self.wrong: list[str] = []
        self._news = asyncio.Event()

    def message_received(self, message: bytes, *, is_text: bool) -> None:
        event = orjson.loads(message)
        if event["event"] == "output":
            self.expect(event["seq"] == self.seq, f"output {event['seq']} in the place of {self.seq}")
            self.expect(len(event["data"]) <= OUTPUT_LIMIT_CHARACTERS, "an output over the limit")
            self.seq = event["seq"] + 1
            self.take(event["data"].split("\n"))
        elif event["event"] == "gap":
            self.expect(event["from"] == self.seq, f"a gap from {event['from']} in the place of {self.seq}")
            self.seq = event["to"] + 1
            self.gaps.append(event)
        else:
            self.told[event["event"]] = event
        self._news.set()

    def take(self, lines: list[str]) -> None:
        self.lines += len(lines)

    def closed(self, code: int) -> None:
        self.expect(not self.told or code == 1006, f"closed with {code}")
        self._news.set()

    def expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.wrong.append(otherwise)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                assert not self.wrong, self.wrong
                self._news.clear()
                await self._news.wait()


class LineReader(Reader):
    """Of an agent that numbers its lines: without a gap there is not one missing."""

    def __init__(self) -> None:
        super().__init__()
        self.last_line = -1

    def take(self, lines: list[str]) -> None:
        super().take(lines)
        numbers = [int(line[:8]) for line in lines]
        begin = max(self.last_line + 1, numbers[0]) if self.gaps else self.last_line + 1
        self.expect(numbers == list(range(begin, begin + len(numbers))), f"line {numbers[0]} behind {self.last_line}")
        self.last_line = numbers[-1]

    async def until_line(self, number: int) -> None:
        await self.until(lambda: self.last_line == number)


AnyReader = TypeVar("AnyReader", bound=Reader)


async def open_reader(house: ApiHouse, instance: Instance, make: Callable[[], AnyReader]) -> AnyReader:
    endpoint = AgentEndpoint("127.0.0.1", int(house.url.rpartition(":")[2]), "no-agent")
    target = f"/api/game/servers/{instance.id}/console"
    reader = await open_websocket(endpoint, target, make, check_dial=lambda _: None, tls=TLS, timeout_seconds=10)
    reader.send_text(orjson.dumps({"event": "auth", "token": house.ada_token}))
    await reader.until(lambda: reader.told.get("state", {}).get("connected"))
    return reader


def stop_reading(reader: Reader) -> asyncio.Transport:
    """With a small buffer in the kernel, so that little has to be printed until it is full."""
    assert reader.transport is not None
    reader.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    reader.transport.pause_reading()
    return reader.transport


@pytest.mark.gen_test(timeout=90)
async def test_a_viewer_that_never_reads_costs_fifty_others_no_line_and_the_agent_no_time(database: Database) -> None:
    async with ConsoleAgent() as agent, ApiHouse(database) as house:
        instance = await house.instance(house.ada, agent.endpoint)
        slow = await open_reader(house, instance, LineReader)
        readers = [await open_reader(house, instance, LineReader) for _ in range(READERS)]
        unread = stop_reading(slow)
        (stream,) = agent.streams
        channel = house.services.consoles._channels[instance.id]
        scrollback = channel.scrollback
        printed = 0

        def most_behind() -> int:
            return min(viewer.cursor for viewer in channel.viewers)

        while most_behind() >= scrollback.oldest_seq or not scrollback.oldest_seq:
            assert printed < LINE_LIMIT, "the viewer that does not read holds nobody up, and loses nothing"
            for number in range(printed, printed + BATCH):
                stream.send_text(b"%08d %b" % (number, b"x" * 190))
            printed += BATCH
            for reader in readers:
                await reader.until_line(printed - 1)
            assert scrollback.held_bytes <= SCROLLBACK_BYTES
            for viewer in channel.viewers:
                assert viewer.transport is not None
                assert viewer.transport.get_write_buffer_size() <= WRITE_HIGH_BYTES + 2 * OUTPUT_LIMIT_CHARACTERS
        assert [(reader.lines, reader.gaps) for reader in readers] == [(printed, [])] * READERS
        assert stream.congestions == 0

        unread.resume_reading()
        await slow.until_line(printed - 1)
        assert {gap["reason"] for gap in slow.gaps} == {"too_slow"}
        assert slow.lines < printed
        for reader in (slow, *readers):
            assert reader.wrong == []
            reader.abort()


@pytest.mark.gen_test(timeout=90)
async def test_an_agent_that_floods_its_console_harms_no_other_and_fills_no_memory(
    database: Database, tmp_path: Path
) -> None:
    with (
        AgentProcess(tmp_path / "loud", FLOOD, *GAME_OPTIONS, "--stop-seconds", "0.2") as loud,
        AgentProcess(tmp_path / "quiet", LINE_GAME, *GAME_OPTIONS) as quiet,
    ):
        await quiet.until_ready()
        async with ApiHouse(database) as house:
            endpoints = [AgentEndpoint("127.0.0.1", int(a.url.rpartition(":")[2]), TOKEN) for a in (loud, quiet)]
            flooding, calm = [await house.instance(house.ada, endpoint) for endpoint in endpoints]
            flooded = await open_reader(house, flooding, Reader)
            async with ConsoleClient(f"{house.url}/api/game/servers/{calm.id}/console") as other:
                await other.send("auth", token=house.ada_token)
                await other.until(lambda event: event["event"] == "state" and event["connected"])
                scrollback = house.services.consoles._channels[flooding.id].scrollback
                for number in range(10):
                    await other.send("command", id=number, command=f"say number {number}.")
                    await other.printed(f"number {number}.")
                    assert scrollback.held_bytes <= SCROLLBACK_BYTES
                await flooded.until(lambda: flooded.lines >= FLOOD_LINES)
                assert scrollback.held_bytes <= SCROLLBACK_BYTES
                assert other.numbers == list(range(len(other.numbers)))
            assert (await house.call("GET", "/healthz")).status == 200
            assert flooded.wrong == []
            flooded.abort()
