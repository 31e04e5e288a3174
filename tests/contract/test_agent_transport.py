"""HTTP to agents over real sockets: keep-alive, deadlines, limits, and nothing that an agent could redirect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from controlplane.agents.client import ACTIONS_PER_AGENT, AgentClient
from controlplane.agents.http_connection import HttpTransport
from controlplane.errors import (
    AgentError,
    AgentProtocolError,
    AgentRefused,
    AgentUnreachable,
    Overloaded,
)
from controlplane.models import AgentEndpoint
from controlplane.ports import AgentResponse
from tests.broken_agents import KINDS, SocketAgent, answer, healthy, never_answers, says, writes_raw
from tests.free_ports import closed_port
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, AgentProcess
from tests.refagent_process import TOKEN as REAL_TOKEN

LIMIT = 100_000
SECONDS = 50.0
"""For what answers."""
SHORT_SECONDS = 0.3
"""For what does not answer in time."""


def allow(_address: str) -> None:
    """Every address may be dialled."""


def get(
    transport: HttpTransport, agent: SocketAgent, target: str = "/health", **more: float
) -> Awaitable[AgentResponse]:
    options = {"timeout_seconds": SECONDS, "body_limit_bytes": LIMIT, **more}
    return transport.request(agent.endpoint, "GET", target, **options)  # type: ignore[arg-type]


def client(transport: HttpTransport) -> AgentClient:
    return AgentClient(
        transport,
        poll_timeout_seconds=SECONDS,
        action_timeout_seconds=SECONDS,
        backup_timeout_seconds=SECONDS,
        body_limit_bytes=LIMIT,
    )


@pytest.mark.gen_test
async def test_gets_share_one_connection_and_carry_the_token() -> None:
    transport = HttpTransport(check_dial=allow)
    async with SocketAgent() as agent:
        for _ in range(5):
            response = await get(transport, agent)
            assert (response.status, response.body) == (200, b'{"status": "ok"}')
        assert agent.connections == 1
        first, second = get(transport, agent, "/ready"), get(transport, agent, "/status")
        assert (await first).body == b'{"ready": true}'
        assert b"running" in (await second).body
        assert agent.connections == 2
        transport.forget(agent.endpoint)
        await get(transport, agent)
        assert agent.connections == 3
        await transport.close()
    assert transport.open_connections == 0


@pytest.mark.gen_test
async def test_a_connection_that_the_agent_closed_meanwhile_is_replaced() -> None:
    closed = asyncio.Event()

    async def closes_after_each(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if closed.is_set():  # the second request on this connection finds it closed
            writer.close()
            closed.clear()
            return
        await healthy(path, reader, writer)

    transport = HttpTransport(check_dial=allow)
    async with SocketAgent(closes_after_each) as agent:
        await get(transport, agent)
        closed.set()
        assert (await get(transport, agent)).status == 200
        assert agent.connections == 2
        await transport.close()


@pytest.mark.gen_test
async def test_an_action_is_sent_once_on_a_connection_of_its_own() -> None:
    transport = HttpTransport(check_dial=allow)
    async with SocketAgent() as agent:
        await get(transport, agent)
        agent.behave = writes_raw(b"")
        with pytest.raises(AgentUnreachable):
            await client(transport).start(agent.endpoint, request_id="r1")
        assert agent.requests.count("POST /start") == 1
        assert agent.connections == 2
        await transport.close()


@pytest.mark.gen_test
async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    transport = HttpTransport(check_dial=allow)
    async with SocketAgent(writes_raw(b"HTTP/1.1 200 OK\r\n\r\n{}")) as agent:
        assert (await get(transport, agent)).body == b"{}"
        await transport.close()


@pytest.mark.gen_test
async def test_interim_answers_are_skipped_and_bounded() -> None:
    transport = HttpTransport(check_dial=allow)
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with SocketAgent(writes_raw(interim * 2 + answer(b"{}"), then_close=False)) as agent:
        assert (await get(transport, agent)).status == 200
        agent.behave = writes_raw(interim * 20 + answer(b"{}"), then_close=False)
        with pytest.raises(AgentProtocolError):
            await get(transport, agent)
        await transport.close()


@pytest.mark.gen_test
async def test_a_second_answer_that_nobody_asked_for_closes_the_connection() -> None:
    transport = HttpTransport(check_dial=allow)
    forged = answer(b'{"ready": true}')
    async with SocketAgent(writes_raw(answer(b"{}") + forged, then_close=False)) as agent:
        with pytest.raises(AgentProtocolError):
            await get(transport, agent)
        agent.behave = healthy
        assert (await get(transport, agent)).body == b'{"status": "ok"}'
        await transport.close()


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.gen_test
async def test_every_broken_agent_ends_bounded_in_time_and_memory(name: str) -> None:
    """A complete answer that `states` judges, or an error of the tree; nothing else, and no connection left."""
    transport = HttpTransport(check_dial=allow)
    seconds = SHORT_SECONDS if KINDS[name].reason == "agent_timeout" else SECONDS
    async with SocketAgent(KINDS[name].behave) as agent:
        try:
            response = await get(transport, agent, "/ready", timeout_seconds=seconds)
        except AgentError as error:
            assert error.stable_code == KINDS[name].reason  # noqa: PT017 - both outcomes are right, for different kinds
        else:
            assert len(response.body) <= 2 * LIMIT + 1000
        await transport.close()
    assert transport.open_connections == 0


@pytest.mark.gen_test
async def test_an_agent_that_refuses_connections_is_unreachable() -> None:
    transport = HttpTransport(check_dial=allow)
    with closed_port() as port:
        endpoint = AgentEndpoint("127.0.0.1", port, REAL_TOKEN)
        with pytest.raises(AgentUnreachable, match="Connection refused"):
            await transport.request(endpoint, "GET", "/", timeout_seconds=SECONDS, body_limit_bytes=LIMIT)
    await transport.close()


@pytest.mark.gen_test
async def test_an_address_that_may_not_be_dialled_is_not() -> None:
    def refuse(address: str) -> None:
        raise AgentUnreachable(f"{address} is not allowed")

    transport = HttpTransport(check_dial=refuse)
    async with SocketAgent() as agent:
        with pytest.raises(AgentUnreachable, match="not allowed"):
            await get(transport, agent)
        assert agent.connections == 0
    await transport.close()


@pytest.mark.gen_test
async def test_a_caller_that_goes_away_leaves_no_connection_in_use() -> None:
    transport = HttpTransport(check_dial=allow)
    async with SocketAgent(never_answers) as agent:
        waiting = asyncio.ensure_future(get(transport, agent))
        await agent.asked.wait()
        waiting.cancel()
        agent.behave = healthy
        assert (await get(transport, agent)).status == 200
        assert agent.connections == 2
        await transport.close()


@pytest.mark.gen_test
async def test_closing_fails_what_is_under_way() -> None:
    transport = HttpTransport(check_dial=allow)
    async with SocketAgent(never_answers) as agent:
        waiting = asyncio.ensure_future(get(transport, agent))
        await agent.asked.wait()
        await transport.close()
        with pytest.raises(AgentUnreachable):
            await waiting


@pytest.mark.gen_test
async def test_a_refusal_keeps_status_and_body() -> None:
    transport = HttpTransport(check_dial=allow)
    async with SocketAgent(says(b'{"error": "busy"}', status="409 Conflict")) as agent:
        with pytest.raises(AgentRefused) as refused:
            await client(transport).restart(agent.endpoint, request_id="r1")
        assert (refused.value.status, refused.value.body) == (409, {"error": "busy"})
        agent.behave = says(b"out of order", status="500 Internal Server Error")
        with pytest.raises(AgentRefused) as refused:
            await client(transport).stop(agent.endpoint, request_id="r1")
        assert (refused.value.status, refused.value.body) == (500, "out of order")
        await transport.close()


@pytest.mark.parametrize("status", ["304 Not Modified", "199 Odd", "700 Odd"])
@pytest.mark.gen_test
async def test_a_status_that_is_no_answer_to_a_post_is_a_protocol_error(status: str) -> None:
    transport = HttpTransport(check_dial=allow)
    async with SocketAgent(writes_raw(f"HTTP/1.1 {status}\r\n\r\n".encode())) as agent:
        with pytest.raises((AgentProtocolError, AgentUnreachable)):
            await client(transport).start(agent.endpoint, request_id="r1")
        await transport.close()


@pytest.mark.gen_test
async def test_calls_to_one_agent_are_bounded_in_number() -> None:
    allowed = asyncio.Event()

    async def waits(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await allowed.wait()
        await healthy(path, reader, writer)

    transport = HttpTransport(check_dial=allow)
    agents = client(transport)
    async with SocketAgent(waits) as agent, SocketAgent() as neighbour:
        waiting = [
            asyncio.ensure_future(agents.start(agent.endpoint, request_id="r")) for _ in range(ACTIONS_PER_AGENT)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await agents.start(agent.endpoint, request_id="r")
        assert (await agents.start(neighbour.endpoint, request_id="r")).status == 200
        allowed.set()
        assert [reply.status for reply in await asyncio.gather(*waiting)] == [200] * ACTIONS_PER_AGENT
        assert (await agents.start(agent.endpoint, request_id="r")).status == 200
        await transport.close()


@pytest.mark.gen_test
async def test_assert_ready_says_what_is_missing() -> None:
    transport = HttpTransport(check_dial=allow)
    async with SocketAgent() as agent:
        await client(transport).assert_agent_ready(agent.endpoint)
        agent.behave = says(b'{"ready": false, "reason": "the map is being made"}', "/ready")
        with pytest.raises(AgentProtocolError, match="the map is being made") as refused:
            await client(transport).assert_agent_ready(agent.endpoint)
        assert refused.value.stable_code == "not_ready"
        await transport.close()


@pytest.mark.gen_test
async def test_the_reference_agent_is_driven_for_real(tmp_path: Path) -> None:
    transport = HttpTransport(check_dial=allow)
    agents = client(transport)
    with AgentProcess(tmp_path / "agent", LINE_GAME, *GAME_OPTIONS) as agent:
        endpoint = AgentEndpoint("127.0.0.1", int(agent.url.rpartition(":")[2]), REAL_TOKEN)
        await agent.until_ready()
        await agents.assert_agent_ready(endpoint)
        reply = await agents.send_console_command(endpoint, "say hello", request_id="r1")
        assert reply.document == {"accepted": True}
        assert (await agents.stop(endpoint, request_id="r2")).status == 202
        await agent.until_state("stopped")
        with pytest.raises(AgentRefused) as refused:
            await agents.send_console_command(endpoint, "say hello", request_id="r3")
        assert refused.value.status == 409
        await transport.close()
