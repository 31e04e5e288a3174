"""Game servers and dev containers over HTTP: lists, state, power, commands, administration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.models import AgentEndpoint, AgentState, Connection, InstanceKind, Process
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.broken_agents import TOKEN, SocketAgent, never_answers, says, writes_raw
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, AgentProcess, kill, until
from tests.refagent_process import TOKEN as REAL_TOKEN

pytestmark = pytest.mark.timeout(120)

REGISTRATION = {
    "kind": "game",
    "name": "Oakvale",
    "vmid": 500,
    "address": "127.0.0.1",
    "port": 9000,
    "token": "a-token-of-sixteen-and-more",
}


def state_where(house: ApiHouse, instance_id: str, **wanted: Any) -> Callable[[], Awaitable[Any]]:
    async def seen() -> Any:
        state = (await house.call("GET", f"/api/admin/instances/{instance_id}", token=house.root_token)).body["state"]
        return state if all(state[name] == value for name, value in wanted.items()) else None

    return seen


@pytest.mark.gen_test(timeout=60)
async def test_a_customer_lists_their_own_with_state_in_pages(database: Database) -> None:
    async with ApiHouse(database) as house:
        for _ in range(5):
            await house.instance(house.ada)
        await house.instance(house.bob)
        await house.instance(house.ada, kind=InstanceKind.DEV)
        first = (await house.call("GET", "/api/game/servers?limit=3", token=house.ada_token)).body
        assert len(first["items"]) == 3
        assert set(first["items"][0]) == {"id", "kind", "vmid", "name", "ownerId", "createdAt", "state"}
        rest = (await house.call("GET", f"/api/game/servers?after={first['nextAfter']}", token=house.ada_token)).body
        assert len(rest["items"]) == 2
        assert rest["nextAfter"] is None
        ids = [item["id"] for item in first["items"] + rest["items"]]
        assert ids == sorted(set(ids))
        assert len((await house.call("GET", "/api/dev", token=house.ada_token)).body["items"]) == 1
        assert len((await house.call("GET", "/api/admin/instances", token=house.root_token)).body["items"]) == 7


@pytest.mark.gen_test(timeout=60)
async def test_lists_are_filtered_by_kind_readiness_and_connection(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent() as agent:
        ready = await house.instance(house.ada, agent.endpoint)
        await house.instance(house.ada)
        await until(state_where(house, ready.id, ready=True))

        async def ids(query: str, target: str = "/api/game/servers") -> list[str]:
            answer = await house.call("GET", f"{target}?{query}", token=house.root_token)
            return [item["id"] for item in answer.body["items"]]

        assert await ids("ready=true") == [ready.id]
        assert ready.id not in await ids("ready=false")
        assert await ids("connection=connected") == [ready.id]
        assert await ids("kind=dev") == []
        assert await ids(f"ownerId={house.ada.id}&ready=true", "/api/admin/instances") == [ready.id]
        assert await ids(f"ownerId={house.bob.id}", "/api/admin/instances") == []


@pytest.mark.gen_test(timeout=60)
async def test_the_revision_is_the_etag_and_unchanged_state_is_304(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent() as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        await until(state_where(house, instance.id, ready=True))
        target = f"/api/game/servers/{instance.id}/state"
        answer = await house.call("GET", target, token=house.ada_token)
        etag = answer.headers["ETag"]
        assert str(answer.body["revision"]) in etag
        again = await house.call("GET", target, token=house.ada_token, headers={"If-None-Match": etag})
        assert (again.status, again.raw) == (304, b"")
        agent.behave = says(b'{"ready": false}', "/ready")
        await until(state_where(house, instance.id, ready=False))
        changed = await house.call("GET", target, token=house.ada_token, headers={"If-None-Match": etag})
        assert changed.status == 200
        assert changed.headers["ETag"] != etag


@pytest.mark.gen_test(timeout=60)
async def test_an_agents_2xx_is_passed_through_and_its_refusal_keeps_status_and_body(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent() as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        target = f"/api/game/servers/{instance.id}/start"
        agent.behave = says(b'{"state":  "starting"}', "/start", status="202 Accepted")
        answer = await house.call("POST", target, token=house.ada_token)
        assert (answer.status, answer.raw) == (202, b'{"state":  "starting"}')
        agent.behave = says(b'{"error": "disk full", "free": 0}', "/start", status="507 Insufficient Storage")
        answer = await house.call("POST", target, token=house.ada_token)
        assert answer.status == 507
        assert answer.body == {
            "error": "The agent refused to start the workload.",
            "details": {"error": "disk full", "free": 0},
        }
        agent.behave = says(b"<script>alert(1)</script>", "/start", headers="Content-Type: text/html\r\n")
        answer = await house.call("POST", target, token=house.ada_token)
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.gen_test(timeout=60)
async def test_an_agents_failures_are_told_apart(database: Database) -> None:
    async with ApiHouse(database, AGENT_ACTION_TIMEOUT_SECONDS="0.5") as house, SocketAgent(never_answers) as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        late = await house.call("POST", f"/api/game/servers/{instance.id}/restart", token=house.ada_token)
        assert (late.status, late.code) == (504, "agent_timeout")
        await house.services.instances.remove(instance.id)
    async with ApiHouse(database) as house, SocketAgent() as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        target = f"/api/game/servers/{instance.id}/restart"
        agent.behave = writes_raw(b"SSH-2.0-OpenSSH\r\n")
        odd = await house.call("POST", target, token=house.ada_token)
        assert (odd.status, odd.code) == (502, "http_invalid")
        gone = await house.call(
            "POST", f"/api/game/servers/{(await house.instance(house.ada)).id}/stop", token=house.ada_token
        )
        assert (gone.status, gone.code) == (503, "agent_unreachable")
        assert gone.headers["Retry-After"]


@pytest.mark.gen_test(timeout=60)
async def test_the_request_id_and_the_token_reach_the_agent(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent() as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        await house.call(
            "POST",
            f"/api/game/servers/{instance.id}/console/command",
            {"command": "say hi"},
            token=house.ada_token,
            headers={"X-Request-Id": "from-the-portal"},
        )
    (head,) = [head for head in agent.heads if head.startswith("POST /console/command")]
    assert "X-Request-Id: from-the-portal" in head
    assert f"Authorization: Bearer {TOKEN}" in head


@pytest.mark.gen_test(timeout=60)
async def test_a_suspended_instance_is_read_but_not_used(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent() as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        admin = f"/api/admin/instances/{instance.id}"
        suspended = await house.call("POST", f"{admin}/suspend", {"reason": "unpaid"}, token=house.root_token)
        assert suspended.body["state"]["suspension"]["reason"] == "unpaid"
        refused = await house.call("POST", f"/api/game/servers/{instance.id}/start", token=house.ada_token)
        assert (refused.status, refused.code) == (409, "suspended")
        assert refused.body["details"]["reason"] == "unpaid"
        assert (await house.call("GET", f"/api/game/servers/{instance.id}", token=house.ada_token)).status == 200
        assert "POST /start" not in agent.requests
        await until(state_where(house, instance.id, operation=None))  # the workload is stopped
        await house.call("POST", f"{admin}/unsuspend", token=house.root_token)
        assert (await house.call("POST", f"/api/game/servers/{instance.id}/start", token=house.ada_token)).status == 200


@pytest.mark.gen_test(timeout=60)
async def test_an_admin_registers_changes_and_removes(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent() as agent:
        body = {**REGISTRATION, "ownerId": house.ada.id, "port": agent.port, "token": TOKEN}
        made = await house.call("POST", "/api/admin/instances", body, token=house.root_token)
        assert made.status == 201
        assert TOKEN not in made.raw.decode()
        assert made.body["address"] == "127.0.0.1"
        target = f"/api/admin/instances/{made.body['id']}"
        await until(state_where(house, made.body["id"], ready=True))
        changed = await house.call("PATCH", target, {"name": "Elm", "ownerId": house.bob.id}, token=house.root_token)
        assert (changed.body["name"], changed.body["ownerId"]) == ("Elm", house.bob.id)
        assert (await house.call("GET", "/api/game/servers/500", token=house.ada_token)).status == 404
        assert (await house.call("GET", "/api/game/servers/500", token=house.bob_token)).body["name"] == "Elm"
        assert (await house.call("DELETE", target, token=house.root_token)).status == 204
        assert (await house.call("GET", target, token=house.root_token)).status == 404
        again = await house.call("POST", "/api/admin/instances", body, token=house.root_token)
        assert again.status == 201, "vmid and address are free again"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"address": "169.254.169.254"}, 422, "validation_failed"),
        ({"address": "8.8.8.8"}, 422, "validation_failed"),
        ({"address": "localhost"}, 422, "validation_failed"),
        ({"ownerId": "usr_nobody"}, 422, "validation_failed"),
        ({"vmid": 501}, 409, "vmid_taken"),
        ({"port": 9001}, 409, "address_taken"),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_a_registration_that_cannot_be_is_refused(
    database: Database, changes: dict[str, Any], status: int, code: str
) -> None:
    async with ApiHouse(database) as house:
        taken = {**REGISTRATION, "ownerId": house.ada.id, "vmid": 501, "port": 9001}
        assert (await house.call("POST", "/api/admin/instances", taken, token=house.root_token)).status == 201
        body = {**REGISTRATION, "ownerId": house.ada.id, **changes}
        answer = await house.call("POST", "/api/admin/instances", body, token=house.root_token)
        assert (answer.status, answer.code) == (status, code)
        if status == 422:
            assert set(answer.body["details"]["fields"]) == set(changes)


@pytest.mark.gen_test(timeout=60)
async def test_an_idempotency_key_gives_the_stored_answer_and_refuses_another_body(database: Database) -> None:
    async with ApiHouse(database) as house:
        body = {**REGISTRATION, "ownerId": house.ada.id}
        key = {"Idempotency-Key": "order-1"}
        answers = await asyncio.gather(
            *(house.call("POST", "/api/admin/instances", body, token=house.root_token, headers=key) for _ in range(5))
        )
        assert sorted({answer.status for answer in answers}) in ([201], [201, 409])
        replay = await house.call("POST", "/api/admin/instances", body, token=house.root_token, headers=key)
        assert replay.status == 201
        assert replay.headers["Idempotency-Replayed"] == "true"
        assert len((await house.call("GET", "/api/admin/instances", token=house.root_token)).body["items"]) == 1
        other = await house.call(
            "POST", "/api/admin/instances", {**body, "vmid": 7000}, token=house.root_token, headers=key
        )
        assert (other.status, other.code) == (409, "idempotency_key_reused")


@pytest.mark.gen_test(timeout=90)
async def test_a_killed_process_is_crashed_and_a_killed_agent_disconnected_and_both_recover(
    database: Database, tmp_path: Path
) -> None:
    """On real processes, through the whole application, counted in polls."""
    async with ApiHouse(database) as house:
        folder = tmp_path / "agent"
        with AgentProcess(folder, LINE_GAME, *GAME_OPTIONS) as agent:
            port = int(agent.url.rpartition(":")[2])
            instance = await house.instance(house.ada, AgentEndpoint("127.0.0.1", port, REAL_TOKEN))
            await until(state_where(house, instance.id, ready=True, process="running"))

            polls_until_crashed = _PollsUntil(house, lambda state: state.process is Process.CRASHED)
            kill((await agent.get("/status"))["pid"])
            await agent.until_state("crashed")
            polls_until_crashed.count_from_here()
            crashed = await until(state_where(house, instance.id, process="crashed"))
            assert polls_until_crashed.count <= 3, "two polls, and the one that may have been under way"
            assert (crashed["ready"], crashed["health"]["reason"]) == (False, "process_crashed")

            started = await house.call("POST", f"/api/game/servers/{instance.id}/start", token=house.ada_token)
            assert started.status == 202
            await until(state_where(house, instance.id, ready=True, process="running"))

            polls_until_gone = _PollsUntil(house, lambda state: state.connection is Connection.DISCONNECTED)
            kill(agent.process.pid)
            agent.process.wait()
            polls_until_gone.count_from_here()
            gone = await until(state_where(house, instance.id, connection="disconnected"))
            assert polls_until_gone.count <= 4, "three polls, and the one that may have been under way"
            assert (gone["process"], gone["stale"], gone["ready"]) == ("running", True, False)
        with AgentProcess(folder, LINE_GAME, *GAME_OPTIONS) as agent:
            moved = int(agent.url.rpartition(":")[2])
            await house.services.instances.update(instance.id, {"port": moved})
            back = await until(state_where(house, instance.id, connection="connected", ready=True))
            assert (back["process"], back["stale"]) == ("running", False)


class _PollsUntil:
    """How many polls of the only instance it took until its state was as described, at once or later.

    Counted when the state changes: whoever asks for it afterwards may be held up, while the polls go on.
    """

    def __init__(self, house: ApiHouse, is_so: Callable[[AgentState], bool]) -> None:
        self._house = house
        self._is_so = is_so
        self._from = self._to = self._polls()
        self._is_reached = False
        house.services.states.add_listener(self._changed)

    def count_from_here(self) -> None:
        self._from = self._polls()

    @property
    def count(self) -> float:
        assert self._is_reached
        return max(0.0, self._to - self._from)

    def _changed(self, _before: AgentState, after: AgentState) -> None:
        if not self._is_reached and self._is_so(after):
            self._is_reached = True
            self._to = self._polls() + 1  # the one that tells is counted when it has ended

    def _polls(self) -> float:
        registry = self._house.services.metrics.registry
        return sum(
            registry.get_sample_value("controlplane_agent_polls_total", {"outcome": outcome}) or 0
            for outcome in ("answered", "failed")
        )
