"""Backups over the real application: forwarding, the normalized view, one restore at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane.models import AgentEndpoint, Suspension
from controlplane.storage.database import Database
from tests.api_house import Answer, ApiHouse
from tests.broken_agents import SocketAgent, answer, says
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, TOKEN, AgentProcess, until

pytestmark = pytest.mark.timeout(120)


@pytest.mark.gen_test(timeout=60)
async def test_a_backup_brings_a_files_old_content_back(database: Database, tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "agent", LINE_GAME, *GAME_OPTIONS) as agent:
        await agent.until_ready()
        (agent.files / "world.txt").write_text("old")
        async with ApiHouse(database) as house:
            port = int(agent.url.rpartition(":")[2])
            instance = await house.instance(house.ada, AgentEndpoint("127.0.0.1", port, TOKEN))
            base = f"/api/game/servers/{instance.id}/backups"
            created = await house.call("POST", base, {"name": "before"}, token=house.ada_token)
            assert created.status == 201
            backup_id = created.body["id"]
            assert (await agent.get("/game/backups")) == (await house.call("GET", base, token=house.ada_token)).body
            view = (await house.call("GET", f"{base}?view=normalized", token=house.ada_token)).body
            assert view["unreadable"] == []
            assert (view["backups"][0]["id"], view["backups"][0]["name"]) == (backup_id, "before")
            assert view["backups"][0]["createdAt"].endswith("Z")
            (agent.files / "world.txt").write_text("new")
            restored = await house.call("POST", f"{base}/restore?id={backup_id}", token=house.ada_token)
            assert restored.status == 200
            assert (agent.files / "world.txt").read_text() == "old"
            assert (await house.call("DELETE", f"{base}/{backup_id}", token=house.ada_token)).status == 200
            gone = await house.call("DELETE", f"{base}/{backup_id}", token=house.ada_token)
            assert gone.status == 404
            assert set(gone.body) == {"error", "details"}
            assert gone.body["error"] == "The agent refused to delete the backup."
            await house.services.audit.flush()
            actions = [row["action"] async for row in database.collection("audit").find({"subject": instance.id})]
            assert actions.count("instance.backup_create") == 1
            assert actions.count("instance.backup_restore") == 1
            assert actions.count("instance.backup_delete") == 2


@pytest.mark.gen_test(timeout=60)
async def test_a_second_restore_is_refused_while_one_is_under_way_here_and_in_another_process(
    database: Database,
) -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slowly(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path == "/game/backups/restore":
            begun.set()
            await finish.wait()
        await says(b"{}")(path, reader, writer)

    settings: dict[str, Any] = {"AGENT_BACKUP_TIMEOUT_SECONDS": "30"}
    async with SocketAgent(slowly) as agent, ApiHouse(database, **settings) as house, ApiHouse(database) as other:
        instance = await house.instance(house.ada, agent.endpoint)
        await other.services.instances.sync()
        target = f"/api/game/servers/{instance.id}/backups/restore?id=b1"
        first = asyncio.create_task(house.call("POST", target, token=house.ada_token))
        await begun.wait()
        for each in (house, other):
            refused = await each.call("POST", target, token=each.ada_token)
            assert (refused.status, refused.code) == (409, "restore_in_progress")
        # The long call holds no place of power commands, nor of polls.
        power = await house.call("POST", f"/api/game/servers/{instance.id}/start", token=house.ada_token)
        assert power.status == 200
        seen = agent.requests.count("GET /health")
        await until(lambda: _polled_since(agent, seen))
        finish.set()
        assert (await first).status == 200
        assert (await other.call("POST", target, token=other.ada_token)).status == 200


async def _polled_since(agent: SocketAgent, seen: int) -> bool:
    return agent.requests.count("GET /health") > seen + 2


@pytest.mark.gen_test(timeout=60)
async def test_ids_reach_the_agent_as_one_segment_or_not_at_all(database: Database) -> None:
    async with SocketAgent(says(b"{}")) as agent, ApiHouse(database) as house:
        instance = await house.instance(house.ada, agent.endpoint)
        base = f"/api/game/servers/{instance.id}/backups"
        await house.call("DELETE", f"{base}/a%2Fb%3Fc%20d", token=house.ada_token)
        await house.call("POST", f"{base}/restore?id=x%26y%2F..%0D%0AX", token=house.ada_token)
        changes = [request for request in agent.requests if not request.startswith("GET")]
        assert changes == ["DELETE /game/backups/a%2Fb%3Fc%20d", "POST /game/backups/restore?id=x%26y%2F..%0D%0AX"]
        assert (await house.call("DELETE", f"{base}/%2E%2E", token=house.ada_token)).status == 404
        assert (await house.call("POST", f"{base}/restore", token=house.ada_token)).status == 422
        twice = await house.call("POST", f"{base}/restore?id=a&id=b", token=house.ada_token)
        assert twice.body["details"]["fields"] == {"id": ["is given more than once"]}
        assert (await house.call("GET", f"{base}?view=other", token=house.ada_token)).status == 422


@pytest.mark.gen_test(timeout=60)
async def test_a_list_of_unknown_shape_passes_through_but_has_no_normalized_view(database: Database) -> None:
    async with SocketAgent(says(b'{"archives": []}')) as agent, ApiHouse(database) as house:
        instance = await house.instance(house.ada, agent.endpoint)
        base = f"/api/game/servers/{instance.id}/backups"
        assert (await house.call("GET", base, token=house.ada_token)).body == {"archives": []}
        refused = await house.call("GET", f"{base}?view=normalized", token=house.ada_token)
        assert (refused.status, refused.code) == (502, "backups_invalid")


@pytest.mark.gen_test(timeout=60)
async def test_one_key_makes_one_backup_and_a_suspended_instance_none(database: Database) -> None:
    async with SocketAgent(says(b'{"id": "b1"}', status="201 Created")) as agent, ApiHouse(database) as house:
        instance = await house.instance(house.ada, agent.endpoint)
        base = f"/api/game/servers/{instance.id}/backups"
        key = {"Idempotency-Key": "once"}
        first = await house.call("POST", base, {"name": "n"}, token=house.ada_token, headers=key)
        again = await house.call("POST", base, {"name": "n"}, token=house.ada_token, headers=key)
        assert (first.status, first.body) == (again.status, again.body) == (201, {"id": "b1"})
        assert agent.requests.count("POST /game/backups") == 1
        await house.services.instances.set_suspension(instance.id, Suspension("unpaid", house.services.clock.now()))
        refused = await house.call("POST", base, token=house.ada_token)
        assert (refused.status, refused.code) == (409, "suspended")


@pytest.mark.gen_test(timeout=60)
async def test_a_customer_may_have_so_many_backups_and_an_administrator_any_number(database: Database) -> None:
    asked: list[str] = []
    listed = b'{"backups": [{"id": "one"}]}'
    full = b'{"backups": [{"id": "one"}, {"id": "two"}]}'

    async def answering(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(path)
        writer.write(answer(listed if path == "/game/backups" else b'{"ready": true, "state": "running"}'))

    async with SocketAgent(answering) as agent, ApiHouse(database, QUOTA_BACKUPS="2") as house:
        instance = await house.instance(house.ada, agent.endpoint)
        base = f"/api/game/servers/{instance.id}/backups"
        assert (await house.call("POST", base, {"name": "second"}, token=house.ada_token)).status == 200
        listed = full
        asked.clear()
        refused = await house.call("POST", base, {"name": "third"}, token=house.ada_token)
        assert (refused.status, refused.code) == (409, "quota_reached")
        assert refused.body["details"] == {"limit": 2, "used": 2}
        assert asked.count("/game/backups") == 1
        assert (await house.call("POST", base, {"name": "third"}, token=house.root_token)).status == 200


@pytest.mark.gen_test(timeout=60)
async def test_of_many_backups_asked_for_at_once_in_two_processes_no_more_are_made_than_fit(database: Database) -> None:
    made: list[str] = []

    async def answering(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listed = f"[{', '.join(made)}]".encode()
        if agent.requests[-1] == "POST /game/backups":
            made.append(f'{{"id": "b{len(made)}"}}')
            listed = made[-1].encode()
        writer.write(answer(listed if path == "/game/backups" else b'{"ready": true, "state": "running"}'))

    settings: dict[str, Any] = {"QUOTA_BACKUPS": "3"}
    async with (
        SocketAgent(answering) as agent,
        ApiHouse(database, **settings) as house,
        ApiHouse(database, **settings) as other,
    ):
        instance = await house.instance(house.ada, agent.endpoint)
        await other.services.instances.sync()
        target = f"/api/game/servers/{instance.id}/backups"

        async def ask(which: ApiHouse) -> Answer:
            async def answered() -> Answer | None:
                answer = await which.call("POST", target, {}, token=which.ada_token)
                return None if answer.status == 409 and answer.code == "backup_in_progress" else answer

            found: Answer = await until(answered, seconds=40)
            return found

        answers = await asyncio.gather(*(ask(each) for each in (house, other) * 4))
        assert sorted(each.status for each in answers) == [200] * 3 + [409] * 5
        assert {each.code for each in answers if each.status == 409} == {"quota_reached"}
        assert len(made) == 3


@pytest.mark.gen_test(timeout=60)
async def test_a_list_that_cannot_be_read_keeps_nobody_from_a_backup(database: Database) -> None:
    async def answering(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b'"no list"'))

    async with SocketAgent(answering) as agent, ApiHouse(database, QUOTA_BACKUPS="1") as house:
        instance = await house.instance(house.ada, agent.endpoint)
        created = await house.call("POST", f"/api/game/servers/{instance.id}/backups", {}, token=house.ada_token)
        assert (created.status, created.raw) == (200, b'"no list"')
