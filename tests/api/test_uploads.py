"""Uploads through the real application to the reference agent, and to agents that behave badly."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.models import AgentEndpoint, Instance, InstanceKind, Suspension
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.broken_agents import TOKEN as BROKEN_TOKEN
from tests.file_trees import sizes_below
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, TOKEN, AgentProcess, kill, until

pytestmark = pytest.mark.timeout(120)

BLOCK = os.urandom(1 << 20)


@dataclass(frozen=True, slots=True)
class Told:
    status: int
    head: str
    body: Any


class Upload:
    """A request on a bare socket, so that a test decides what is sent when."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, seconds: float = 20) -> Told:
        async with asyncio.timeout(seconds):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
            if status == 100:
                return Told(status, head, None)
            length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
            raw = await self._reader.readexactly(length)
        return Told(status, head, json.loads(raw) if raw else None)


@asynccontextmanager
async def upload(
    house: ApiHouse, instance: Instance, headers: str, path: str = "world.bin", token: str | None = None
) -> AsyncIterator[Upload]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]))
    prefix = "/api/game/servers" if instance.kind is InstanceKind.GAME else "/api/dev"
    writer.write(
        f"POST {prefix}/{instance.id}/files/upload?path={path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token or house.ada_token}\r\nX-Request-Id: up-1\r\n{headers}\r\n".encode("latin-1")
    )
    try:
        yield Upload(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def agent_house(
    database: Database, folder: Path, *options: str, kind: InstanceKind = InstanceKind.GAME, **settings: Any
) -> AsyncIterator[tuple[ApiHouse, Instance, AgentProcess]]:
    with AgentProcess(folder / "agent", LINE_GAME, *GAME_OPTIONS, *options) as agent:
        async with ApiHouse(database, **settings) as house:
            port = int(agent.url.rpartition(":")[2])
            yield house, await house.instance(house.ada, AgentEndpoint("127.0.0.1", port, TOKEN), kind), agent


def leftovers(agent: AgentProcess) -> list[str]:
    """Every file below the agent's folder that looks like a part of an upload."""
    return [path.name for path, size in sizes_below(agent.folder).items() if size > 100_000]


@pytest.mark.parametrize("kind", list(InstanceKind))
@pytest.mark.gen_test(timeout=60)
async def test_a_file_with_a_length_arrives_whole(database: Database, tmp_path: Path, kind: InstanceKind) -> None:
    async with agent_house(database, tmp_path, kind=kind) as (house, instance, agent):
        async with upload(house, instance, f"Content-Length: {4 * len(BLOCK)}\r\n", "maps/world.bin") as sent:
            for _ in range(4):
                await sent.send(BLOCK)
            told = await sent.answer()
        assert told.status == 201, told
        assert told.body == {"path": "maps/world.bin", "sizeBytes": 4 * len(BLOCK)}
        assert "X-Request-Id: up-1" in told.head
        assert "Connection: close" in told.head
        assert (agent.files / "maps/world.bin").read_bytes() == 4 * BLOCK
        await house.services.audit.flush()
        rows = [row async for row in database.collection("audit").find({"action": "instance.upload"})]
        assert [(row["subject"], json.loads(row["detail"])["bytes"]) for row in rows] == [(instance.id, 4 * len(BLOCK))]


@pytest.mark.gen_test(timeout=60)
async def test_a_chunked_file_arrives_whole_with_extensions_and_trailers(database: Database, tmp_path: Path) -> None:
    async with agent_house(database, tmp_path) as (house, instance, agent):
        async with upload(house, instance, "Transfer-Encoding: chunked\r\n") as sent:
            for size in (1, 7, 70_000, len(BLOCK)):
                await sent.send(b'%x;a="b"\r\n%b\r\n' % (size, BLOCK[:size]))
            await sent.send(b"0\r\nX-Sum: 1\r\n\r\n")
            told = await sent.answer()
        assert told.status == 201, told
        assert (agent.files / "world.bin").read_bytes() == BLOCK[:1] + BLOCK[:7] + BLOCK[:70_000] + BLOCK


@pytest.mark.gen_test(timeout=60)
async def test_an_empty_file_is_a_file(database: Database, tmp_path: Path) -> None:
    async with agent_house(database, tmp_path) as (house, instance, agent):
        for path, headers in (("a", "Content-Length: 0\r\n"), ("b", "")):
            async with upload(house, instance, headers, path) as sent:
                assert (await sent.answer()).status == 201
            assert (agent.files / path).read_bytes() == b""
        async with upload(house, instance, "Transfer-Encoding: chunked\r\n", "c") as sent:
            await sent.send(b"0\r\n\r\n")
            assert (await sent.answer()).status == 201


@pytest.mark.gen_test(timeout=60)
async def test_continue_is_said_once_the_agent_is_there_and_not_before_a_refusal(
    database: Database, tmp_path: Path
) -> None:
    async with agent_house(database, tmp_path) as (house, instance, agent):
        headers = "Content-Length: 5\r\nExpect: 100-continue\r\n"
        async with upload(house, instance, headers) as sent:
            assert (await sent.answer()).status == 100
            await sent.send(b"hello")
            assert (await sent.answer()).status == 201
        assert (agent.files / "world.bin").read_bytes() == b"hello"
        async with upload(house, instance, headers, token=house.bob_token) as refused:
            assert (await refused.answer()).status == 404
        nowhere = await house.instance(house.ada)
        async with upload(house, nowhere, headers) as unreachable:
            told = await unreachable.answer()
            assert (told.status, told.body["code"]) == (503, "agent_unreachable")


@pytest.mark.gen_test(timeout=60)
async def test_an_agents_refusal_half_way_is_told_at_once(database: Database, tmp_path: Path) -> None:
    async with agent_house(database, tmp_path, "--max-upload-bytes", "200000") as (house, instance, agent):
        async with upload(house, instance, "Transfer-Encoding: chunked\r\n") as sent:
            for _ in range(4):
                await sent.send(b"%x\r\n%b\r\n" % (100_000, BLOCK[:100_000]))
            told = await sent.answer()  # though the body has not ended
            assert told.status == 413
            assert told.body["error"] == "The agent refused the upload."
            assert told.body["details"]["code"] == "too_large"
        await until(lambda: _later(not sizes_below(agent.folder / "staging")))
        async with upload(house, instance, "Content-Length: 5\r\n", "../outside") as sent:
            await sent.send(b"hello")
            told = await sent.answer()
            assert 400 <= told.status < 500
            assert set(told.body) == {"error", "details"}


@pytest.mark.gen_test(timeout=60)
async def test_a_killed_agent_ends_the_upload_at_once(database: Database, tmp_path: Path) -> None:
    async with (
        agent_house(database, tmp_path) as (house, instance, agent),
        upload(house, instance, f"Content-Length: {1 << 30}\r\n") as sent,
    ):
        await sent.send(BLOCK)
        await until(lambda: _later(leftovers(agent)))
        kill(agent.process.pid)
        told = await sent.answer()
        assert (told.status, told.body["code"]) == (502, "upload_broken_off")


async def _later(value: object) -> object:
    return value


@pytest.mark.gen_test(timeout=60)
async def test_a_client_that_goes_away_leaves_no_file(database: Database, tmp_path: Path) -> None:
    async with agent_house(database, tmp_path) as (house, instance, agent):
        (agent.files / "world.bin").write_bytes(b"old")
        async with upload(house, instance, f"Content-Length: {1 << 30}\r\n") as sent:
            await sent.send(BLOCK)
            await until(lambda: _later(leftovers(agent)))
        await until(lambda: _later(not leftovers(agent)))
        assert (agent.files / "world.bin").read_bytes() == b"old"
        async with asyncio.timeout(10):
            await house.services.lifecycle.until_idle()


class BareAgent:
    """An agent for uploads alone: reads so much of the body, then does what it is told."""

    def __init__(self, answer: bytes, *, read_bytes: int) -> None:
        self._answer = answer
        self._read_bytes = read_bytes
        self.received = b""
        self._closing = asyncio.Event()

    async def __aenter__(self) -> BareAgent:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = AgentEndpoint("127.0.0.1", self._server.sockets[0].getsockname()[1], BROKEN_TOKEN)
        self._writers: list[asyncio.StreamWriter] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._closing.set()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"POST"):
                writer.transport.abort()
                return
            self.received = head
            while len(self.received) - len(head) < self._read_bytes:
                data = await reader.read(65536)
                if not data:
                    break
                self.received += data
            writer.write(self._answer)
            await writer.drain()
            await self._closing.wait()  # reading nothing any more
        except OSError:
            return


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", 502, "upload_invalid"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 502, "http_invalid"),
        (b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 2\r\n\r\n{}", 507, None),
        (b"HTTP/1.1 413 Too Large\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" * 1, 504, "agent_timeout"),
        (b"HTTP/1.1 413 Too Large\r\nContent-Length: 5368709120\r\n\r\n" + b"x" * (2 << 20), 502, "body_too_large"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, 502, "http_invalid"),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_what_an_agent_says_too_early_or_wrongly_is_told(
    database: Database, answer: bytes, status: int, code: str | None
) -> None:
    idle_seconds = "1" if code == "agent_timeout" else "20"
    async with (
        BareAgent(answer, read_bytes=1000) as agent,
        ApiHouse(database, UPLOAD_IDLE_SECONDS=idle_seconds) as house,
    ):
        instance = await house.instance(house.ada, agent.endpoint)
        async with upload(house, instance, "Content-Length: 100000000\r\n") as sent:
            await sent.send(BLOCK)
            told = await sent.answer()
            expected = (408, "request_timeout") if code == "agent_timeout" else (status, code)
            assert (told.status, told.body.get("code")) == expected


async def taken_until_it_stops(sent: Upload, *, blocks: int) -> int:
    """How many bytes are taken before a second passes in which nothing is."""
    for number in range(blocks):
        try:
            async with asyncio.timeout(1):
                await sent.send(BLOCK)
        except TimeoutError:
            return number * len(BLOCK)
    return blocks * len(BLOCK)


@pytest.mark.gen_test(timeout=60)
async def test_a_slow_agent_slows_its_client_and_neither_memory_nor_others(database: Database) -> None:
    async with BareAgent(b"", read_bytes=1) as agent, ApiHouse(database) as house:
        instance = await house.instance(house.ada, agent.endpoint)
        async with upload(house, instance, "Content-Length: 1000000000\r\n") as sent:
            sent.writer.transport.set_write_buffer_limits(high=0)
            taken = await taken_until_it_stops(sent, blocks=900)
            assert taken < 64 << 20  # what the sockets' buffers hold, and no more
            assert (await house.call("GET", "/healthz")).status == 200


@pytest.mark.gen_test(timeout=60)
async def test_an_agent_that_takes_nothing_and_a_client_that_sends_nothing_run_out_of_time(database: Database) -> None:
    async with BareAgent(b"", read_bytes=1) as agent, ApiHouse(database, UPLOAD_IDLE_SECONDS="0.5") as house:
        instance = await house.instance(house.ada, agent.endpoint)
        async with upload(house, instance, "Content-Length: 1000000000\r\n") as sent:
            for _ in range(64):
                sent.writer.write(BLOCK)
            assert (await sent.answer()).status == 504
        async with upload(house, instance, "Content-Length: 1000\r\n") as sent:
            await sent.send(b"x")
            assert (await sent.answer()).status == 408


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n",
        b"zz\r\n",
        b"-5\r\n",
        b"5 \r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5\r\nhello world\r\n",
        b"ffffffffffffffff\r\n",
        b"5;" + b"x" * 5000,
        b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n a: folded\r\n\r\n",
        b"0\r\n" + b"x: y\r\n" * 10_000,
        b"5\r\nhelloX\r\n",
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_a_malformed_chunked_body_is_refused_and_leaves_no_file(
    database: Database, tmp_path: Path, body: bytes
) -> None:
    async with agent_house(database, tmp_path) as (house, instance, agent):
        async with upload(house, instance, "Transfer-Encoding: chunked\r\n") as sent:
            await sent.send(body)
            told = await sent.answer()
            assert (told.status, told.body["code"]) == (400, "chunked_invalid")
        assert not (agent.files / "world.bin").exists()


@pytest.mark.parametrize("fault", [b"zz\r\n", b"5\r\nhelloX\r\n", b"5;" + b"x" * 5000])
@pytest.mark.gen_test(timeout=60)
async def test_a_fault_half_way_leaves_neither_a_part_nor_anything_here(
    database: Database, tmp_path: Path, fault: bytes
) -> None:
    async with agent_house(database, tmp_path) as (house, instance, agent):
        async with upload(house, instance, "Transfer-Encoding: chunked\r\n") as sent:
            await sent.send(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
            await until(lambda: _later(leftovers(agent)))
            await sent.send(fault)
            told = await sent.answer()
            assert (told.status, told.body["code"], told.body["requestId"]) == (400, "chunked_invalid", "up-1")
        await until(lambda: _later(not leftovers(agent)))
        uploads = house.services.uploads
        assert not uploads._stops
        await until(lambda: _later(not uploads._under_way and not house.services.lifecycle.requests_under_way))


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_an_ambiguous_framing_reaches_no_agent(database: Database, headers: str) -> None:
    async with BareAgent(b"", read_bytes=1) as agent, ApiHouse(database) as house:
        instance = await house.instance(house.ada, agent.endpoint)
        async with upload(house, instance, headers) as sent:
            await sent.send(b"hello")
            told = await sent.answer()
            assert (told.status, told.body["code"]) == (400, "framing_invalid")
        assert agent.received == b""


@pytest.mark.gen_test(timeout=60)
async def test_what_follows_the_body_is_not_part_of_it(database: Database, tmp_path: Path) -> None:
    async with agent_house(database, tmp_path) as (house, instance, agent):
        async with upload(house, instance, "Content-Length: 5\r\n") as sent:
            await sent.send(b"helloGET /api/auth/me HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await sent.answer()).status == 201
            with pytest.raises(asyncio.IncompleteReadError):
                await sent.answer()
        assert (agent.files / "world.bin").read_bytes() == b"hello"


@pytest.mark.gen_test(timeout=60)
async def test_size_and_number_are_limited(database: Database, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"UPLOAD_LIMIT_BYTES": "100000", "UPLOADS_PER_USER": "1"}
    async with agent_house(database, tmp_path, **settings) as (house, instance, agent):
        async with upload(house, instance, "Content-Length: 100001\r\n") as early:
            told = await early.answer()
            assert (told.status, told.body["details"]) == (413, {"limitBytes": 100_000})
        async with upload(house, instance, "Transfer-Encoding: chunked\r\n") as late:
            await late.send(b"%x\r\n%b\r\n" % (100_001, BLOCK[:100_001]))
            assert (await late.answer()).status == 413
        async with upload(house, instance, "Content-Length: 10\r\n") as first:
            await first.send(b"hello")
            await until(lambda: _later(house.services.uploads._stops))
            async with upload(house, instance, "Content-Length: 1\r\n", "b") as second:
                told = await second.answer()
                assert told.status == 429
                assert "Retry-After: 5" in told.head
            async with upload(house, instance, "Content-Length: 1\r\n", "c", token=house.root_token) as other:
                await other.send(b"x")
                assert (await other.answer()).status == 201
            await first.send(b"world")
            assert (await first.answer()).status == 201
        assert (agent.files / "world.bin").read_bytes() == b"helloworld"


@pytest.mark.gen_test(timeout=60)
async def test_a_logout_a_suspension_and_the_end_of_the_process_end_an_upload(
    database: Database, tmp_path: Path
) -> None:
    async with agent_house(database, tmp_path) as (house, instance, agent):
        token = await house.token("ada@example.org")
        async with upload(house, instance, "Content-Length: 10\r\n", token=token) as sent:
            await sent.send(b"hello")
            await until(lambda: _later(house.services.uploads._stops))
            await house.call("POST", "/api/auth/logout", token=token)
            told = await sent.answer()
            assert (told.status, told.body["code"]) == (401, "session_revoked")
        async with upload(house, instance, "Content-Length: 10\r\n") as sent:
            await sent.send(b"hello")
            await until(lambda: _later(house.services.uploads._stops))
            suspension = Suspension("unpaid", house.services.clock.now())
            await house.services.instances.set_suspension(instance.id, suspension)
            told = await sent.answer()
            assert (told.status, told.body["code"]) == (409, "suspended")
        await house.services.instances.set_suspension(instance.id, None)
        async with upload(house, instance, "Content-Length: 10\r\n") as sent:
            await sent.send(b"hello")
            await until(lambda: _later(house.services.uploads._stops))
            draining = asyncio.create_task(house.server.drain(limit_seconds=0.2))
            told = await sent.answer()
            assert told.status == 503
            await draining
        assert not (agent.files / "world.bin").exists()


@pytest.mark.gen_test(timeout=60)
async def test_forms_and_impossible_paths_are_refused_by_name(database: Database, tmp_path: Path) -> None:
    async with agent_house(database, tmp_path) as (house, instance, _):
        form = "Content-Length: 5\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        async with upload(house, instance, form) as sent:
            assert (await sent.answer()).body["details"]["fields"].keys() == {"Content-Type"}
        for path in ("a%00b", "a%0Ab", "folder/"):
            async with upload(house, instance, "Content-Length: 5\r\n", path) as sent:
                assert (await sent.answer()).body["details"]["fields"].keys() == {"path"}
