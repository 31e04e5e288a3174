"""Instances asked for over the API, made of real agents by the local provider, used, and deleted again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane.errors import ProviderRefused
from controlplane.models import InstanceKind
from controlplane.provisioning.local import LocalProvider
from controlplane.provisioning.local_workloads import PROFILES
from controlplane.storage.database import Database
from tests.announced_process import ROOT
from tests.api.test_events import events
from tests.api_house import Answer, ApiHouse
from tests.broken_agents import SocketAgent, says
from tests.fake_provisioning import FakeProvider
from tests.refagent_process import until

pytestmark = pytest.mark.timeout(120)

FAST = {
    "PROVISION_READY_INTERVAL_SECONDS": "0.05",
    "PROVISION_RETRY_SECONDS": "0.05",
}


def house_with(database: Database, folder: Path, **settings: Any) -> ApiHouse:
    """The agents end with the house."""
    return ApiHouse(database, provider=LocalProvider(folder, ROOT, dies_with_parent=True), **{**FAST, **settings})


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


def shell_house(database: Database, folder: Path, **settings: Any) -> ApiHouse:
    """With a workload that is ready at once."""
    profiles = dict.fromkeys(InstanceKind, PROFILES[InstanceKind.DEV])
    local = LocalProvider(folder, ROOT, dies_with_parent=True, profiles=profiles)
    return ApiHouse(database, provider=local, **{**FAST, **settings})


def fake_house(database: Database, provider: FakeProvider, **settings: Any) -> ApiHouse:
    """With machines in memory, whose agent is wherever the fake says."""
    return ApiHouse(database, provider=provider, **{**FAST, **settings})


async def finished(house: ApiHouse, operation_id: str) -> Any:
    async def end() -> Any:
        operation = (await house.call("GET", f"/api/operations/{operation_id}", token=house.ada_token)).body
        return operation if operation["finished"] else None

    return await until(end, seconds=50)


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


@pytest.mark.gen_test(timeout=90)
async def test_twenty_requests_with_one_key_at_two_processes_make_one_instance(
    database: Database, tmp_path: Path
) -> None:
    async with shell_house(database, tmp_path) as house, shell_house(database, tmp_path) as other:

        async def ask_until_answered(which: ApiHouse) -> Answer:
            async def answered() -> Answer | None:
                answer = await ask(which, key="once")
                return None if answer.status == 409 and answer.code == "idempotency_in_progress" else answer

            found: Answer = await until(answered)
            return found

        answers = await asyncio.gather(*(ask_until_answered(each) for each in (house, other) * 10))
        assert {answer.status for answer in answers} == {202}
        ids = {answer.body["operation"]["id"] for answer in answers}
        assert len(ids) == 1
        assert (await finished(house, ids.pop()))["state"] == "succeeded"
        assert len(machines_in(tmp_path)) == 1
        assert (await ask(house, name="Another", key="once")).code == "idempotency_key_reused"
        assert await database.collection("operations").count_documents({}) == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_key_whose_answer_was_lost_with_its_process_finds_the_same_operation(database: Database) -> None:
    """The claim on the key and its answer are gone; the operation itself is unique under the key."""
    async with (
        SocketAgent(needs_token=False) as agent,
        fake_house(database, FakeProvider(port=agent.endpoint.port)) as house,
    ):
        first = await ask(house, key="once")
        await database.collection("idempotency").delete_many({})
        again = await ask(house, key="once")
        assert again.body["operation"]["id"] == first.body["operation"]["id"]


@pytest.mark.gen_test(timeout=90)
async def test_twenty_requests_with_different_keys_at_two_processes_never_share_a_vmid(database: Database) -> None:
    provider = FakeProvider(port=9)  # nobody listens there: no operation gets past booting
    settings = {"OPERATIONS_PER_USER": "100", "QUOTA_GAME_SERVERS": "100", "PROVISION_BOOT_SECONDS": "3600"}
    async with fake_house(database, provider, **settings) as house, fake_house(database, provider, **settings) as other:

        async def ask_until_taken(number: int) -> None:
            async def taken() -> bool:
                answer = await ask((house, other)[number % 2], f"Server {number}", key=f"key-{number}")
                assert answer.status in (202, 503), answer.raw  # a slow machine may have to be asked again
                return answer.status == 202

            await until(taken, seconds=60)

        await asyncio.gather(*(ask_until_taken(number) for number in range(20)))

        async def all_made() -> bool:
            return len(provider.machines) == 20

        await until(all_made, seconds=50)
        rows = [row async for row in database.collection("operations").find({})]
        vmids = [row["vmid"] for row in rows]
        assert len(set(vmids)) == 20
        assert provider.count("create") == 20
        assert {row["runner"] for row in rows} == {house.plane._owner, other.plane._owner}


@pytest.mark.gen_test(timeout=60)
async def test_two_processes_never_both_act(database: Database) -> None:
    async with SocketAgent(needs_token=False) as agent:
        provider = FakeProvider(port=agent.endpoint.port)
        inside: set[int] = set()
        overlaps: list[int] = []

        async def enter(vmid: int) -> None:
            if vmid in inside:
                overlaps.append(vmid)
            inside.add(vmid)
            await asyncio.sleep(0)

        async def leave(vmid: int) -> None:
            inside.discard(vmid)

        for call in ("create", "start", "stop", "destroy"):
            provider.before[call], provider.after[call] = enter, leave
        async with fake_house(database, provider) as house, fake_house(database, provider) as other:
            operation = (await ask(house)).body["operation"]
            for _ in range(20):
                for each in (house, other):
                    each.plane.provisioning.runner.kick(operation["id"])
                await asyncio.sleep(0)
            done = await finished(other, operation["id"])
            assert (done["state"], overlaps) == ("succeeded", [])
            assert [provider.count(call) for call in ("create", "start")] == [1, 1]
            instance_id = done["instanceId"]

            async def is_seen_there_too() -> bool:
                answer = await other.call("GET", f"/api/game/servers/{instance_id}", token=other.ada_token)
                return answer.status == 200

            await until(is_seen_there_too)


@pytest.mark.gen_test(timeout=60)
async def test_the_owner_is_told_of_every_step_and_the_state_names_the_operation(database: Database) -> None:
    async with SocketAgent(needs_token=False) as agent:
        provider = FakeProvider(port=agent.endpoint.port)
        async with fake_house(database, provider) as house, events(house, house.ada_token) as stream:
            await stream.named("snapshot")
            operation = (await ask(house)).body["operation"]
            told: list[str] = []
            while not told or told[-1] != "succeeded":
                event = await stream.named("operation")
                assert event.data["id"] == operation["id"]
                told.append(event.data["state"])
            assert list(dict.fromkeys(told)) == [
                *("requested", "reserved", "creating", "booting", "agentConnected", "readyCheck", "persisting"),
                *("publishing", "succeeded"),
            ]
            reached, go_on = asyncio.Event(), asyncio.Event()

            async def hang(_vmid: int) -> None:
                reached.set()
                await go_on.wait()

            provider.before["stop"] = hang
            server = f"/api/game/servers/{operation['instanceId']}"
            etag = (await house.call("GET", f"{server}/state", token=house.ada_token)).headers["ETag"]
            deletion = (await house.call("DELETE", server, token=house.ada_token)).body["operation"]
            await reached.wait()
            headers = {"If-None-Match": etag}
            state = await house.call("GET", f"{server}/state", token=house.ada_token, headers=headers)
            assert state.body["operation"] == {"id": deletion["id"], "kind": "delete", "phase": "stopping"}
            again = await house.call("DELETE", server, token=house.ada_token)
            assert again.body["operation"]["id"] == deletion["id"]
            go_on.set()
            assert (await finished(house, deletion["id"]))["state"] == "deleted"
            assert (await stream.named("removed")).data["id"] == operation["instanceId"]


@pytest.mark.gen_test(timeout=60)
async def test_operations_are_listed_canceled_and_foreign_ones_look_missing(database: Database) -> None:
    provider = FakeProvider(port=9)
    async with fake_house(database, provider) as house:
        ids = [(await ask(house, f"Server {number}")).body["operation"]["id"] for number in range(3)]
        first = (await house.call("GET", "/api/operations?limit=2", token=house.ada_token)).body
        assert [each["id"] for each in first["items"]] == ids[:0:-1]
        target = f"/api/operations?after={first['nextAfter']}"
        rest = (await house.call("GET", target, token=house.ada_token)).body
        assert ([each["id"] for each in rest["items"]], rest["nextAfter"]) == (ids[:1], None)

        for method, suffix in (("GET", ""), ("POST", "/cancel")):
            headers = {"X-Request-Id": "same"}
            foreign = await house.call(
                method, f"/api/operations/{ids[0]}{suffix}", token=house.bob_token, headers=headers
            )
            missing = await house.call(
                method, f"/api/operations/op_none{suffix}", token=house.bob_token, headers=headers
            )
            assert (foreign.status, foreign.raw) == (404, missing.raw)
        assert (await house.call("GET", "/api/operations", token=house.bob_token)).body["items"] == []

        canceled = await house.call("POST", f"/api/operations/{ids[0]}/cancel", token=house.ada_token)
        assert canceled.status == 202
        assert (await finished(house, ids[0]))["state"] == "canceled"
        late = await house.call("POST", f"/api/operations/{ids[0]}/cancel", token=house.ada_token)
        assert (late.status, late.code) == (409, "not_cancelable")


@pytest.mark.gen_test(timeout=60)
async def test_an_agent_that_is_alive_but_never_ready_is_never_seen_and_administrators_read_why(
    database: Database,
) -> None:
    async with SocketAgent(needs_token=False) as agent:
        agent.behave = says(b'{"ready": false, "reason": "no map", "state": "running"}')
        provider = FakeProvider(port=agent.endpoint.port)
        async with fake_house(database, provider, PROVISION_READY_SECONDS="0.3") as house:
            asked = (await ask(house)).body["operation"]
            done = await finished(house, asked["id"])
            assert (done["state"], done["error"]["code"]) == ("rolledBack", "ready_timeout")
            assert "no map" not in str(done)
            assert (await house.call("GET", "/api/game/servers", token=house.ada_token)).body["items"] == []
            seen = (await house.call("GET", f"/api/operations/{asked['id']}", token=house.root_token)).body
            assert "no map" in seen["error"]["operatorMessage"]
            assert provider.machines == {}


@pytest.mark.gen_test(timeout=60)
async def test_an_administrator_lists_retries_and_gives_up_what_could_not_be_removed(database: Database) -> None:
    provider = FakeProvider(port=9)

    async def refuse(_vmid: int) -> None:
        raise ProviderRefused("It cannot be removed.", operator_message="the disk is locked")

    provider.before["destroy"] = refuse
    settings = {"PROVISION_BOOT_SECONDS": "0.1", "PROVISION_UNDO_ATTEMPTS": "1"}
    async with fake_house(database, provider, **settings) as house:
        ids = [(await ask(house, f"Server {number}")).body["operation"]["id"] for number in range(2)]
        for each in ids:
            assert (await finished(house, each))["state"] == "rollbackFailed"
        target = "/api/admin/operations?state=needsAdministrator"
        listed = (await house.call("GET", target, token=house.root_token)).body["items"]
        assert [each["id"] for each in listed] == ids[::-1]
        assert listed[0]["leftBehind"] == [f"machine {listed[0]['vmid']} at provider fake, marked {ids[1]}"]
        undo = next(step for step in listed[0]["steps"] if step["name"] == "creating")
        assert undo["error"]["operatorMessage"] == "the disk is locked"

        provider.before.clear()
        retried = await house.call("POST", f"/api/admin/operations/{ids[0]}/retry", token=house.root_token)
        assert retried.status == 202
        assert (await finished(house, ids[0]))["state"] == "rolledBack"
        forgotten = await house.call("POST", f"/api/admin/operations/{ids[1]}/forget", token=house.root_token)
        assert forgotten.body["operation"]["state"] == "forgotten"
        assert len(provider.machines) == 1
        assert (await house.call("GET", target, token=house.root_token)).body["items"] == []
        again = await house.call("POST", f"/api/admin/operations/{ids[1]}/forget", token=house.root_token)
        assert (again.status, again.code) == (409, "not_forgettable")
        await house.services.audit.flush()
        actions = {row["action"] async for row in database.collection("audit").find({})}
        assert {"operation.retry", "operation.forget", "instance.provision"} <= actions


@pytest.mark.gen_test(timeout=60)
async def test_what_may_not_be_asked_for_is_refused_with_a_clear_code(database: Database) -> None:
    async with fake_house(database, FakeProvider(port=9), QUOTA_GAME_SERVERS="1", QUOTA_MEMORY_MIB="2048") as house:
        assert (await ask(house, "Big", plan="large")).code == "plan_not_entitled"
        assert (await ask(house, "Odd", plan="huge")).status == 422
        assert (await ask(house, "First")).status == 202
        refused = await ask(house, "Second")
        assert (refused.status, refused.code) == (409, "quota_reached")
        assert refused.body["details"] == {"kind": "game", "limit": 1, "used": 1}
        registered = await house.instance(house.ada)
        by_hand = await house.call("DELETE", f"/api/game/servers/{registered.id}", token=house.ada_token)
        assert (by_hand.status, by_hand.code) == (409, "not_provisioned_here")
        forgotten = await house.call("DELETE", f"/api/admin/instances/{registered.id}", token=house.root_token)
        assert forgotten.status == 204
    async with ApiHouse(database) as house:
        assert (await ask(house)).code == "provisioning_disabled"


@pytest.mark.gen_test(timeout=60)
async def test_an_api_key_needs_the_scope_to_make_and_delete(database: Database) -> None:
    async with fake_house(database, FakeProvider(port=9)) as house:

        async def key(scope: str) -> str:
            body = {"name": scope, "scopes": [scope]}
            answer = await house.call("POST", "/api/auth/api-keys", body, token=house.ada_token)
            return str(answer.body["secret"])

        reader, maker = await key("instances:read"), await key("instances:provision")
        refused = await house.call("POST", "/api/game/servers", {"name": "x"}, token=reader)
        assert (refused.status, refused.code) == (403, "scope_missing")
        made = await house.call("POST", "/api/dev", {"name": "x"}, token=maker)
        assert (made.status, made.body["operation"]["instanceKind"]) == (202, "dev")
