"""What every route of the reference agent has in common, and those that answer at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tests.refagent_process import GAME_OPTIONS, LINE_GAME, TOKEN, AgentProcess, until

ROUTES = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/status"),
    ("POST", "/start"),
    ("POST", "/stop"),
    ("POST", "/restart"),
    ("POST", "/console/command"),
    ("GET", "/console/stream"),
    ("GET", "/game/backups"),
    ("POST", "/game/backups"),
    ("POST", "/game/backups/restore?id=x"),
    ("DELETE", "/game/backups/x"),
    ("POST", "/game/files/upload?path=x"),
    ("POST", "/dev/codeserver/start"),
    ("POST", "/dev/codeserver/stop"),
    ("POST", "/dev/codeserver/restart"),
    ("GET", "/dev/codeserver/status"),
    ("GET", "/no-such-route"),
]
WRONG_AUTHORIZATIONS = [
    None,
    "",
    "Bearer",
    "Bearer ",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    f"Basic {TOKEN}",
    TOKEN,
    "Bearer \xff\xfe",
]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("agent") / "data"
    with AgentProcess(folder, LINE_GAME, *GAME_OPTIONS) as agent:
        yield agent


@pytest.mark.parametrize(("method", "target"), ROUTES)
@pytest.mark.gen_test
async def test_every_route_refuses_who_has_no_token(agent: AgentProcess, method: str, target: str) -> None:
    body = b"{}" if method == "POST" else None
    for wrong in WRONG_AUTHORIZATIONS:
        headers = {} if wrong is None else {"Authorization": wrong}
        answer = await agent.call(method, target, body, token=None, headers=headers)
        assert answer.status == 401, wrong
        assert answer.body["code"] == "unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.gen_test
async def test_the_console_stream_refuses_a_wrong_token_before_the_upgrade(agent: AgentProcess) -> None:
    url = agent.url.replace("http", "ws", 1) + "/console/stream"
    with pytest.raises(HTTPClientError) as refused:
        await websocket_connect(HTTPRequest(url, headers={"Authorization": "Bearer wrong"}))
    assert refused.value.code == 401


@pytest.mark.gen_test
async def test_health_ready_and_status_have_the_shapes_of_the_contract(agent: AgentProcess) -> None:
    await agent.until_ready()
    assert (await agent.call("GET", "/health")).status == 200
    ready = await agent.call("GET", "/ready")
    assert ready.headers["content-type"].startswith("application/json")
    assert ready.body["ready"] is True

    async def with_disk() -> Any:
        """Nobody waits for a walk of the disk that takes long: until then its figures are not there."""
        status = await agent.get("/status")
        return status if "disk" in status else None

    status = await until(with_disk)
    assert status["state"] == "running"
    assert status["error"] is None
    assert status["uptimeSeconds"] > 0
    assert status["cpuPercent"] >= 0
    assert 1 << 20 < status["memory"]["usedBytes"] < status["memory"]["limitBytes"]
    assert 0 <= status["disk"]["usedBytes"] < status["disk"]["limitBytes"]


@pytest.mark.gen_test
async def test_unknown_routes_and_methods_are_told_apart(agent: AgentProcess) -> None:
    missing = await agent.call("GET", "/no-such-route")
    assert (missing.status, missing.body["code"]) == (404, "not_found")
    wrong_method = await agent.call("DELETE", "/health")
    assert (wrong_method.status, wrong_method.body["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"command": 1}', 422),
        (b'{"command": ""}', 422),
        (b'{"command": "  "}', 422),
        (b'{"command": "one\\ntwo"}', 422),
        (b'{"command": "one\\rtwo"}', 422),
        (b'{"command": "nul\\u0000"}', 422),
        (b'{"command": "\\ud800"}', 422),
        (b'{"command": {"$gt": ""}}', 422),
        (b'{"command": "say hi", "as": "root"}', 422),
        (b'{"command": "' + b"x" * 5000 + b'"}', 422),
    ],
)
@pytest.mark.gen_test
async def test_a_command_that_is_not_one_line_is_refused(agent: AgentProcess, body: bytes, status: int) -> None:
    answer = await agent.call("POST", "/console/command", body)
    assert answer.status == status
    assert set(answer.body) >= {"error", "code"}


@pytest.mark.gen_test
async def test_a_body_over_the_limit_is_refused(agent: AgentProcess) -> None:
    answer = await agent.call("POST", "/console/command", b'{"command": "' + b"x" * 100_000 + b'"}')
    assert answer.status in (400, 413, 599)  # Tornado may close before the client has read its answer
    assert (await agent.call("GET", "/health")).status == 200


@pytest.mark.gen_test
async def test_a_command_is_answered_on_the_console(agent: AgentProcess) -> None:
    await agent.until_ready()
    console = await agent.console()
    assert (await agent.command("say good morning, Ærøskøbing")).status == 200
    await console.until_line("[Server] good morning, Ærøskøbing")
    await console.close()


@pytest.mark.gen_test
async def test_codeserver_is_not_offered_without_a_command(agent: AgentProcess) -> None:
    for method, target in ROUTES:
        if "codeserver" in target:
            answer = await agent.call(method, target, b"" if method == "POST" else None)
            assert (answer.status, answer.body["code"]) == (404, "not_offered")
