"""The service itself: headers, CORS, health, readiness, metrics, the database going away, draining."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from controlplane.storage.agent_states import MongoAgentStateRepository
from controlplane.storage.database import Database
from controlplane.storage.embedded_server import EmbeddedServer
from tests.api_house import Answer, ApiHouse
from tests.broken_agents import SocketAgent, healthy, says
from tests.refagent_process import kill, until

pytestmark = pytest.mark.timeout(120)


@pytest.mark.gen_test(timeout=60)
async def test_a_sane_request_id_is_taken_over_and_another_replaced(database: Database) -> None:
    async with ApiHouse(database) as house:
        given = await house.call("GET", "/healthz", headers={"X-Request-Id": "abc-1.2:3_4"})
        assert given.headers["X-Request-Id"] == "abc-1.2:3_4"
        for odd in ("", "x" * 129, "a b", "<script>"):
            answer = await house.call("GET", "/healthz", headers={"X-Request-Id": odd})
            assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-Id"])


@pytest.mark.gen_test(timeout=60)
async def test_only_the_exact_origins_of_the_settings_may_call(database: Database) -> None:
    async with ApiHouse(database) as house:
        ours = {"Origin": "https://portal.example", "Access-Control-Request-Method": "POST"}
        answer = await house.call("OPTIONS", "/api/auth/login", headers=ours)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "https://portal.example"
        assert answer.headers["Access-Control-Allow-Methods"] == "POST"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        refused = await house.call("GET", "/api/auth/me", headers=ours)
        assert refused.status == 401
        assert refused.headers["Access-Control-Allow-Origin"] == "https://portal.example"
        for origin in ("https://portal.example.evil", "http://portal.example", "https://portal.example:8443", "null"):
            other = await house.call("OPTIONS", "/api/auth/login", headers={**ours, "Origin": origin})
            assert "Access-Control-Allow-Origin" not in other.headers
            assert other.headers["Vary"] == "Origin"


@pytest.mark.gen_test(timeout=110)
async def test_health_readiness_metrics_and_description(database: Database) -> None:
    async with ApiHouse(database) as house:
        assert (await house.call("GET", "/healthz")).body == {"status": "alive"}

        async def is_ready() -> Answer | None:
            answer = await house.call("GET", "/readyz")
            return answer if answer.status == 200 else None

        # A machine that held this process up makes it unready, rightly, until that is half a minute ago.
        ready = await until(is_ready, seconds=90)
        assert (ready.body["ready"], ready.body["failed"]) == (True, [])
        metrics = (await house.call("GET", "/metrics")).raw.decode()
        assert "controlplane_http_requests_total" in metrics
        assert "usr_" not in metrics
        description = (await house.call("GET", "/api/openapi.json")).body
        assert description["openapi"] == "3.1.0"
        assert "/api/game/servers/{instance_id}/state" in description["paths"]
        page = await house.call("GET", "/docs")
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert b"/api/auth/login" in page.raw


@pytest.mark.gen_test(timeout=60)
async def test_metrics_can_want_a_token(database: Database) -> None:
    token = "metrics-token-of-32-characters-00"
    async with ApiHouse(database, METRICS_TOKEN=token) as house:
        assert (await house.call("GET", "/metrics")).status == 401
        assert (await house.call("GET", "/metrics", token=token + "x")).status == 401
        assert (await house.call("GET", "/metrics", token=token)).status == 200


@asynccontextmanager
async def own_database(folder: Path, *, timeout_seconds: float) -> AsyncIterator[tuple[EmbeddedServer, Database]]:
    """Whose process a test may stop or kill; it goes on in the end, so that it can be ended."""
    embedded = EmbeddedServer(folder / "storage")
    database = Database(await embedded.start(), "own", timeout_seconds=timeout_seconds)
    try:
        yield embedded, database
    finally:
        with suppress(ProcessLookupError):
            if embedded.process_id is not None:
                os.kill(embedded.process_id, signal.SIGCONT)
        database.close()
        await embedded.stop()


@pytest.mark.gen_test(timeout=90)
async def test_while_the_database_is_away_polling_goes_on_and_what_was_seen_is_written_after(tmp_path: Path) -> None:
    async with (
        own_database(tmp_path, timeout_seconds=5) as (embedded, database),
        ApiHouse(database) as house,
        SocketAgent() as agent,
    ):
        instance = await house.instance(house.ada, agent.endpoint)

        async def is_ready() -> bool:
            return house.services.states.get(instance.id).ready

        await until(is_ready)
        assert embedded.process_id is not None
        os.kill(embedded.process_id, signal.SIGSTOP)
        read = await house.call("GET", "/api/auth/sessions", token=house.ada_token)
        assert (read.status, read.code) == (503, "storage_unavailable")
        assert read.headers["Retry-After"]
        not_ready = await house.call("GET", "/readyz")
        assert not_ready.status == 503
        assert "database" in not_ready.body["failed"]

        agent.behave = says(b'{"ready": false}', "/ready")

        async def is_seen() -> bool:
            return not house.services.states.get(instance.id).ready

        await until(is_seen)
        os.kill(embedded.process_id, signal.SIGCONT)

        async def is_written() -> bool:
            stored = {state.instance_id: state for state in await MongoAgentStateRepository(database).load_all()}
            return instance.id in stored and not stored[instance.id].ready

        await until(is_written, seconds=30)


@pytest.mark.gen_test(timeout=60)
async def test_a_killed_database_child_comes_back_and_the_service_with_it(tmp_path: Path) -> None:
    async with own_database(tmp_path, timeout_seconds=10) as (embedded, database), ApiHouse(database) as house:
        first = embedded.process_id
        assert first is not None
        kill(first)

        async def answers_again() -> bool:
            return (await house.call("GET", "/api/auth/sessions", token=house.ada_token)).status == 200

        await until(answers_again, seconds=30)
        assert embedded.process_id != first


@pytest.mark.gen_test(timeout=60)
async def test_draining_finishes_what_is_under_way_and_accepts_nothing_new(database: Database) -> None:
    may_answer = asyncio.Event()

    async def slow_power(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path == "/start":
            await may_answer.wait()
        await healthy(path, reader, writer)

    async with ApiHouse(database, AGENT_ACTION_TIMEOUT_SECONDS="20") as house, SocketAgent(slow_power) as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        under_way = asyncio.ensure_future(
            house.call("POST", f"/api/game/servers/{instance.id}/start", token=house.ada_token)
        )

        async def has_reached_the_agent() -> bool:
            return "POST /start" in agent.requests

        await until(has_reached_the_agent)
        draining = asyncio.ensure_future(house.server.drain(limit_seconds=20))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await house.call("GET", "/healthz")
        assert not draining.done()
        may_answer.set()
        answer = await under_way
        assert answer.status == 200
        await draining


@pytest.mark.gen_test(timeout=60)
async def test_two_processes_share_the_work_and_see_each_others_writes(database: Database) -> None:
    async with ApiHouse(database) as first, SocketAgent() as agent, ApiHouse(database) as second:
        assert first.services.lifecycle.polls_here
        assert not second.services.lifecycle.polls_here
        instance = await second.instance(second.ada, agent.endpoint)

        async def both_see_it_ready() -> bool:
            for house in (first, second):
                answer = await house.call("GET", f"/api/game/servers/{instance.id}", token=house.ada_token)
                if answer.status != 200 or not answer.body["state"]["ready"]:
                    return False
            return True

        await until(both_see_it_ready)
        logged_out = await first.call("POST", "/api/auth/logout", token=first.bob_token)
        assert logged_out.status == 204

        async def felt_elsewhere() -> bool:
            return (await second.call("GET", "/api/auth/me", token=first.bob_token)).status == 401

        await until(felt_elsewhere)
        await second.services.instances.remove(instance.id)

        async def is_gone() -> bool:
            target = f"/api/game/servers/{instance.id}"
            return (await first.call("GET", target, token=first.ada_token)).status == 404

        await until(is_gone)
