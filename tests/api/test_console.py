"""The console websocket over the real application, a real agent and a real process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError

from controlplane.models import AgentEndpoint, Instance, InstanceKind, Suspension
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.broken_agents import SocketAgent
from tests.console_client import ConsoleClient
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, TOKEN, AgentProcess, kill

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def watched_game(
    database: Database, folder: Path, kind: InstanceKind = InstanceKind.GAME
) -> AsyncIterator[tuple[ApiHouse, Instance, AgentProcess]]:
    with AgentProcess(folder / "agent", LINE_GAME, *GAME_OPTIONS) as agent:
        await agent.until_ready()
        async with ApiHouse(database) as house:
            port = int(agent.url.rpartition(":")[2])
            yield house, await house.instance(house.ada, AgentEndpoint("127.0.0.1", port, TOKEN), kind), agent


def console_url(house: ApiHouse, instance: Instance, query: str = "") -> str:
    prefix = "/api/game/servers" if instance.kind is InstanceKind.GAME else "/api/dev"
    return f"{house.url}{prefix}/{instance.id}/console{query}"


@asynccontextmanager
async def viewer(house: ApiHouse, instance: Instance, token: str | None = None) -> AsyncIterator[ConsoleClient]:
    """Authenticated, and told hello."""
    async with ConsoleClient(console_url(house, instance)) as client:
        await client.send("auth", token=token or house.ada_token)
        await client.named("hello")
        yield client


@pytest.mark.parametrize("kind", list(InstanceKind))
@pytest.mark.gen_test(timeout=60)
async def test_a_viewer_sees_the_scrollback_sends_a_command_and_sees_its_output(
    database: Database, tmp_path: Path, kind: InstanceKind
) -> None:
    async with watched_game(database, tmp_path, kind) as (house, instance, _), viewer(house, instance) as client:
        await client.printed("World ready")
        assert (await client.named("state"))["connected"] in (True, False)
        await client.until(lambda event: event["event"] == "state" and event["connected"])
        await client.send("command", id="c1", command="say hello there")
        assert await client.named("commandAck") == {"event": "commandAck", "id": "c1", "accepted": True, "code": None}
        await client.printed("hello there")
        assert client.numbers == list(range(len(client.numbers)))


@pytest.mark.gen_test(timeout=60)
async def test_many_viewers_share_one_stream_and_a_late_one_gets_the_scrollback(
    database: Database, tmp_path: Path
) -> None:
    async with (
        watched_game(database, tmp_path) as (house, instance, agent),
        viewer(house, instance) as first,
        viewer(house, instance, house.root_token) as second,
    ):
        await first.printed("World ready")
        await first.until(lambda event: event["event"] == "state" and event["connected"])
        await first.send("command", id=1, command="say to everybody")
        await first.printed("to everybody")
        await second.printed("to everybody")
        async with viewer(house, instance) as late:
            last = (await late.printed("to everybody"))["seq"]
            hellos = [each.events[0] for each in (first, second, late)]
            assert len({hello["streamId"] for hello in hellos}) == 1
            assert late.output_until(last) == first.output_until(last)
        # The agent allows sixteen streams: with one taken by the hub, fifteen more fit.
        others = [await agent.console() for _ in range(15)]
        assert (await agent.call("GET", "/console/stream")).status == 503
        for other in others:
            await other.close()


@pytest.mark.gen_test(timeout=60)
async def test_a_resume_goes_on_behind_the_last_number_seen(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _):
        async with viewer(house, instance) as first:
            await first.until(lambda event: event["event"] == "state" and event["connected"])
            await first.printed("World ready")
            last, stream = first.numbers[-1], first.events[0]["streamId"]
            await first.send("command", id=1, command="say while away")
            await first.named("commandAck")
        async with ConsoleClient(console_url(house, instance)) as second:
            # In one go: the replay waits only so long for a resume.
            await asyncio.gather(
                second.send("auth", token=house.ada_token), second.send("resume", streamId=stream, afterSeq=last)
            )
            await second.printed("while away")
            assert second.numbers[0] == last + 1
            assert not [event for event in second.events if event["event"] == "gap"]
        async with viewer(house, instance) as third:
            await third.send("resume", streamId="another-stream", afterSeq=7)
            assert await third.named("gap") == {"event": "gap", "from": 8, "to": None, "reason": "stream_changed"}
            await third.printed("World ready")


@pytest.mark.gen_test(timeout=60)
async def test_a_ticket_opens_one_console_once(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _):
        answer = await house.call("POST", f"/api/game/servers/{instance.id}/console/ticket", token=house.ada_token)
        assert answer.status == 201
        url = console_url(house, instance, f"?ticket={answer.body['ticket']}")
        async with ConsoleClient(url) as client:
            await client.named("hello")
        async with ConsoleClient(url) as again:
            assert await again.closed() == 4401
        other = await house.instance(house.ada)
        answer = await house.call("POST", f"/api/game/servers/{other.id}/console/ticket", token=house.ada_token)
        async with ConsoleClient(console_url(house, instance, f"?ticket={answer.body['ticket']}")) as elsewhere:
            assert await elsewhere.closed() == 4401


@pytest.mark.gen_test(timeout=60)
async def test_who_may_not_view_is_told_by_the_close_code(database: Database) -> None:
    async with ApiHouse(database) as house, SocketAgent() as agent:
        instance = await house.instance(house.ada, agent.endpoint)
        suspended = await house.instance(house.ada)
        await house.services.instances.set_suspension(suspended.id, Suspension("unpaid", house.services.clock.now()))
        missing = console_url(house, instance).replace(instance.id, "gs_missing")
        for url, token, code in (
            (console_url(house, instance), "nonsense", 4401),
            (console_url(house, instance), house.bob_token, 4403),
            (missing, house.ada_token, 4403),
            (console_url(house, suspended), house.ada_token, 4409),
            (console_url(house, instance).replace("game/servers", "dev"), house.ada_token, 4403),
        ):
            async with ConsoleClient(url) as client:
                await client.send("auth", token=token)
                assert await client.closed() == code, (url, token)
        async with ConsoleClient(console_url(house, instance)) as client:
            await client.send("command", id=1, command="say hi")
            assert await client.closed() == 4401


@pytest.mark.gen_test(timeout=60)
async def test_the_origin_is_checked_against_the_list(database: Database) -> None:
    async with ApiHouse(database) as house:
        instance = await house.instance(house.ada)
        for origin in ("https://evil.example", "null", "https://portal.example.evil.example"):
            with pytest.raises(HTTPClientError) as refused:
                async with ConsoleClient(console_url(house, instance), origin=origin):
                    pass
            assert refused.value.code == 403
        for origin in ("https://portal.example", house.settings.public_url):
            async with ConsoleClient(console_url(house, instance), origin=origin) as client:
                await client.send("auth", token=house.ada_token)
                await client.named("hello")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 426),
        ({"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}, 400),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "8"}, 400),
        (
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "short",
            },
            400,
        ),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_what_is_no_handshake_is_refused(database: Database, headers: dict[str, str], status: int) -> None:
    async with ApiHouse(database) as house:
        answer = await house.call("GET", "/api/game/servers/gs_1/console", headers=headers)
        assert answer.status == status


@pytest.mark.gen_test(timeout=60)
async def test_a_logout_a_suspension_and_a_removal_close_the_console(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _):
        token = await house.token("ada@example.org")
        async with viewer(house, instance, token) as out, viewer(house, instance) as stays:
            await house.call("POST", "/api/auth/logout", token=token)
            assert await out.closed() == 4401
            await stays.printed("World ready")
            await house.services.instances.set_suspension(instance.id, Suspension("unpaid", house.services.clock.now()))
            assert await stays.closed() == 4409
        await house.services.instances.set_suspension(instance.id, None)
        async with viewer(house, instance) as moved, viewer(house, instance, house.root_token) as admin:
            await house.services.instances.update(instance.id, {"owner_id": house.bob.id})
            assert await moved.closed() == 4403
            await house.services.instances.remove(instance.id)
            assert await admin.closed() == 4403


@pytest.mark.gen_test(timeout=60)
async def test_a_session_that_another_process_revoked_is_felt(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _):
        token = await house.token("ada@example.org")
        principal = await house.services.authenticator.authenticate(token)
        async with viewer(house, instance, token) as client, ApiHouse(database) as other:
            await other.services.sessions.revoke_session(other.ada.id, principal.session_id or "")
            assert await client.closed() == 4401


@pytest.mark.gen_test(timeout=60)
async def test_a_suspended_account_a_revoked_key_and_an_instance_removed_elsewhere_are_felt(
    database: Database, tmp_path: Path
) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _):
        made = await house.call(
            "POST", "/api/auth/api-keys", {"name": "k", "scopes": ["instances:console"]}, token=house.ada_token
        )
        assert made.status == 201, made.raw
        bobs = await house.instance(house.bob)
        async with (
            viewer(house, instance, made.body["secret"]) as by_key,
            viewer(house, instance) as stays,
            viewer(house, bobs, house.bob_token) as bob,
            ApiHouse(database) as other,
        ):
            revoked = await house.call("DELETE", f"/api/auth/api-keys/{made.body['id']}", token=house.ada_token)
            assert revoked.status == 204
            assert await by_key.closed() == 4401
            suspended = await house.call(
                "POST", f"/api/admin/users/{house.bob.id}/suspend", {"reason": "abuse"}, token=house.root_token
            )
            assert suspended.status == 200, suspended.raw
            assert await bob.closed() == 4401
            removed = await other.call("DELETE", f"/api/admin/instances/{instance.id}", token=other.root_token)
            assert removed.status == 204, removed.raw
            assert await stays.closed() == 4403


@pytest.mark.gen_test(timeout=60)
async def test_a_console_is_renewed_on_the_same_socket_by_its_user_alone(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _):
        old, new = await house.token("ada@example.org"), await house.token("ada@example.org")
        async with viewer(house, instance, old) as client:
            await client.until(lambda event: event["event"] == "state" and event["connected"])
            await client.send("auth", token=new)
            await client.send("command", id=1, command="say before")
            await client.printed("before")
            await house.call("POST", "/api/auth/logout", token=old)
            await client.send("command", id=2, command="say still here")
            await client.printed("still here")
            await client.send("auth", token=house.bob_token)
            assert await client.closed() == 4403


@pytest.mark.gen_test(timeout=60)
async def test_a_killed_agent_is_told_and_a_new_one_is_found_again(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, agent), viewer(house, instance) as client:
        await client.printed("World ready")
        await client.until(lambda event: event["event"] == "state" and event["connected"])
        kill(agent.process.pid)
        agent.process.wait()
        told = await client.until(
            lambda event: event["event"] == "state" and not event["connected"] and event["reason"] != "connecting"
        )
        assert told["retryInSeconds"] > 0
        await client.send("command", id=9, command="say anybody?")
        ack = await client.named("commandAck")
        assert (ack["accepted"], ack["code"]) == (False, "agent_unavailable")
        with AgentProcess(tmp_path / "second", LINE_GAME, *GAME_OPTIONS) as second:
            await second.until_ready()
            port = int(second.url.rpartition(":")[2])
            client.events.clear()
            await house.services.instances.update(instance.id, {"port": port})
            await client.until(lambda event: event["event"] == "state" and event["connected"])
            await client.send("command", id=10, command="say back again")
            await client.printed("back again")


@pytest.mark.gen_test(timeout=60)
async def test_a_reconnection_does_not_show_what_was_shown(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _), viewer(house, instance) as client:
        await client.until(lambda event: event["event"] == "state" and event["connected"])
        await client.send("command", id=1, command="say one of a kind")
        await client.printed("one of a kind")
        channel = house.services.consoles._channels[instance.id]
        assert channel._upstream is not None
        client.events.clear()
        channel._upstream.abort()
        await client.until(lambda event: event["event"] == "state" and not event["connected"])
        await client.until(lambda event: event["event"] == "state" and event["connected"])
        await client.send("command", id=2, command="say something new")
        await client.printed("something new")
        assert "one of a kind" not in client.output


@pytest.mark.gen_test(timeout=60)
async def test_bad_messages_are_answered_and_a_flood_of_them_ends_the_viewer(
    database: Database, tmp_path: Path
) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _), viewer(house, instance) as client:
        for message, code in (
            ("not json", "not_an_event"),
            ('["event"]', "not_an_event"),
            ('{"event": {"$gt": ""}}', "not_an_event"),
            ('{"event": "dance"}', "unknown_event"),
            ('{"event": "command", "id": {}, "command": "x"}', "validation_failed"),
            ('{"event": "resume", "streamId": 1, "afterSeq": 2}', "validation_failed"),
            ('{"event": "auth", "token": {"$gt": ""}}', "validation_failed"),
        ):
            client.events.clear()
            await client.socket.write_message(message)
            assert (await client.named("error"))["code"] == code
        for command, code in (
            ("two\nlines", "not_one_line"),
            ("\x1b[2J", "not_one_line"),
            ("x" * 5000, "validation_failed"),
        ):
            client.events.clear()
            await client.send("command", id=1, command=command)
            assert (await client.named("commandAck"))["code"] == code
        for _ in range(200):
            await client.send("dance")
        assert await client.closed() == 4429


@pytest.mark.gen_test(timeout=60)
async def test_a_message_over_the_limit_and_binary_ones_are_refused(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _), viewer(house, instance) as client:
        await client.socket.write_message(b"\x00", binary=True)
        assert (await client.named("error"))["code"] == "not_an_event"
        await client.send("command", id=1, command="x" * 20_000)
        assert await client.closed() == 1009


@pytest.mark.gen_test(timeout=60)
async def test_commands_are_limited_a_second(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _), viewer(house, instance) as client:
        await client.until(lambda event: event["event"] == "state" and event["connected"])
        for number in range(38):  # far more than a burst, and fewer than the messages that end a viewer
            await client.send("command", id=number, command="say again")
        refused = await client.until(lambda event: event["event"] == "commandAck" and not event["accepted"])
        assert refused["code"] == "rate_limited"


@pytest.mark.gen_test(timeout=60)
async def test_compression_is_agreed_on_and_carries_the_same_output(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _), viewer(house, instance) as plain:
        await plain.until(lambda event: event["event"] == "state" and event["connected"])
        for number in range(5):
            await plain.send("command", id=number, command="say " + "long " * 200)
        await plain.send("command", id=6, command="say done")
        await plain.printed("done")
        answer = await house.call("POST", f"/api/game/servers/{instance.id}/console/ticket", token=house.ada_token)
        # By ticket, since this client would compress what it sends with a context that the server does not keep.
        url = console_url(house, instance, f"?ticket={answer.body['ticket']}")
        async with ConsoleClient(url, compressed=True) as client:
            last = (await client.printed("done"))["seq"]
            assert client.socket.headers is not None
            assert "permessage-deflate" in client.socket.headers["Sec-WebSocket-Extensions"]
            assert client.output_until(last) == plain.output_until(last)
            await plain.send("command", id=7, command="say " + "compressed " * 100)
            await client.printed("compressed compressed")


@pytest.mark.gen_test(timeout=60)
async def test_a_restart_sends_viewers_away_to_come_back(database: Database, tmp_path: Path) -> None:
    async with watched_game(database, tmp_path) as (house, instance, _), viewer(house, instance) as client:
        closing = asyncio.create_task(house.services.consoles.close())
        assert await client.closed() == 1012
        await closing
