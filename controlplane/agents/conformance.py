"""The agent contract as checks against a live agent (docs/agent-contract.md): one line per clause.

Acts as an operator would: it stops and starts the workload, sends one console line, makes and deletes one backup and
uploads one small file. It speaks HTTP through a general client on purpose: the agent, not our transport, is under test.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import WebSocketError, websocket_connect

from controlplane.agents.client import PATHS
from controlplane.agents.documents import bounded_text
from controlplane.agents.readiness import is_agent_ready_result

DEADLINE_SECONDS = 5.0
ACTION_SECONDS = 30.0
SETTLE_SECONDS = 45.0
BODY_LIMIT_BYTES = 1 << 20
_LOOK_SECONDS = 0.2
_STATES = frozenset({"installing", "starting", "running", "stopping", "stopped", "crashed", "error"})


class Broken(Exception):
    """The clause does not hold; the message says what was seen."""


class NotOffered(Exception):
    """An optional part that this agent does not have."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One line of the report. An optional clause may be missing, but not broken; a broken gate ends the row."""

    name: str
    required: bool
    check: Callable[[], Awaitable[str]]
    gate: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        try:
            return json.loads(self.body.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


async def run_agent_check(
    url: str, token: str, write: Callable[[str], object], *, deadline_seconds: float = DEADLINE_SECONDS
) -> int:
    """0 when every clause holds or is optional and not offered, else 1. `write` gets each line of the report.
    `deadline_seconds` is for each question and for the upgrade to a stream."""
    agent = _Agent(url.rstrip("/"), token, deadline_seconds)
    try:
        failed = await _check(agent.observation_clauses(), write)
        if failed:
            write("not checked  power, console, backups and uploads: first the agent must be observable")
        else:
            failed = await _check(agent.action_clauses(), write)
    finally:
        agent.close()
    write("the agent keeps the contract" if not failed else f"{failed} clause(s) broken")
    return 1 if failed else 0


async def _check(clauses: tuple[Clause, ...], write: Callable[[str], object]) -> int:
    """The number of broken clauses. One that has to hold before the others can be asked ends the row."""
    failed = 0
    for clause in clauses:
        try:
            said = await clause.check()
            verdict = "pass"
        except NotOffered as error:
            verdict = "FAIL" if clause.required else "not offered"
            said = str(error)
        except Broken as error:
            verdict, said = "FAIL", str(error)
        failed += verdict == "FAIL"
        write(f"{verdict:12} {clause.name}{': ' if said else ''}{said}")
        if failed and clause.gate:
            break
    return failed


class _Agent:
    """One agent under test."""

    def __init__(self, url: str, token: str, deadline_seconds: float) -> None:
        self._url = url
        self._token = token
        self._deadline_seconds = deadline_seconds
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=BODY_LIMIT_BYTES, max_clients=4)

    def close(self) -> None:
        self._client.close()

    def observation_clauses(self) -> tuple[Clause, ...]:
        return (
            Clause("GET /health answers 2xx", True, self._health, gate=True),
            Clause("every call needs the bearer token", True, self._authorization),
            Clause("GET /ready answers a JSON object with a boolean `ready`", True, self._ready),
            Clause("GET /status answers a JSON object with a known `state`", True, self._status),
        )

    def action_clauses(self) -> tuple[Clause, ...]:
        return (
            Clause("POST /stop ends the workload", True, self._stop),
            Clause("GET /ready is not true while the workload is stopped", True, self._not_ready_when_stopped),
            Clause("POST /start brings the workload to ready", True, self._start),
            Clause("POST /console/command takes one line", True, self._command),
            Clause("POST /restart brings the workload back to ready", True, self._restart),
            Clause("WS /console/stream upgrades", False, self._stream),
            Clause("GET /game/backups lists", False, self._list_backups),
            Clause("POST and DELETE /game/backups make and delete one", False, self._make_backup),
            Clause("POST /game/files/upload stores a file, and nothing outside", False, self._upload),
            Clause("GET /dev/codeserver/status", False, self._codeserver),
        )

    # -- clauses -----------------------------------------------------------------------------------------------------

    async def _health(self) -> str:
        seen = await self._call("GET", PATHS["health"])
        _expect_2xx(seen)
        return ""

    async def _authorization(self) -> str:
        for path in (PATHS["health"], PATHS["ready"], PATHS["status"]):
            for token in (None, "wrong-" + secrets.token_hex(8)):
                seen = await self._call("GET", path, token=token)
                if seen.status != 401:
                    shown = "no token" if token is None else "a wrong token"
                    raise Broken(f"GET {path} with {shown} answered {seen.status}, not 401")
        return ""

    async def _ready(self) -> str:
        seen = await self._call("GET", PATHS["ready"])
        if seen.status != 200:
            return f"not ready: answered {seen.status}"
        document = _object(seen)
        if not isinstance(document.get("ready"), bool):
            raise Broken(f"`ready` is {_shown(document.get('ready'))}, not true or false")
        return "ready" if document["ready"] else "not ready"

    async def _status(self) -> str:
        return (await self._state()) or ""

    async def _stop(self) -> str:
        _expect_2xx(await self._call("POST", PATHS["stop"]))
        await self._until_state("stopped")
        return ""

    async def _not_ready_when_stopped(self) -> str:
        seen = await self._call("GET", PATHS["ready"])
        if is_agent_ready_result(seen.status, seen.document):
            raise Broken("it says ready: true while its /status says stopped")
        return ""

    async def _start(self) -> str:
        _expect_2xx(await self._call("POST", PATHS["start"]))
        await self._until_ready()
        return ""

    async def _restart(self) -> str:
        _expect_2xx(await self._call("POST", PATHS["restart"]))
        await self._until_ready()
        return ""

    async def _command(self) -> str:
        body = json.dumps({"command": "help"}).encode()
        _expect_2xx(await self._call("POST", PATHS["console_command"], body))
        refused = await self._call("POST", PATHS["console_command"], b"{")
        if not 400 <= refused.status < 500:
            raise Broken(f"half a JSON document answered {refused.status}, not 4xx")
        return ""

    async def _stream(self) -> str:
        request = HTTPRequest(
            self._url.replace("http", "ws", 1) + "/console/stream",
            headers={"Authorization": f"Bearer {self._token}"},
            connect_timeout=self._deadline_seconds,
            request_timeout=self._deadline_seconds,
        )
        try:
            async with asyncio.timeout(self._deadline_seconds):
                stream = await websocket_connect(request)
        except HTTPClientError as error:
            if error.code in (404, 501):
                raise NotOffered(f"answered {error.code}") from error
            raise Broken(f"answered {error.code} instead of 101") from error
        except (OSError, WebSocketError) as error:
            raise Broken(f"the upgrade failed: {str(error) or 'no answer in time'}") from error
        stream.close()
        return ""

    async def _list_backups(self) -> str:
        seen = await self._offered("GET", "/game/backups")
        if seen.document is None:
            raise Broken("the list is not JSON")
        return ""

    async def _make_backup(self) -> str:
        made = await self._offered("POST", "/game/backups")
        document = made.document
        backup_id = document.get("id") if isinstance(document, dict) else None
        if not isinstance(backup_id, str | int):
            return "made; its answer has no `id` to delete it by"
        _expect_2xx(await self._call("DELETE", f"/game/backups/{backup_id}"))
        return ""

    async def _upload(self) -> str:
        name = f"agent-check-{secrets.token_hex(4)}.txt"
        headers = {"Content-Type": "application/octet-stream"}
        await self._offered("POST", f"/game/files/upload?path={name}", b"agent-check\n", headers)
        outside = await self._call("POST", "/game/files/upload?path=../agent-check.txt", b"x", headers=headers)
        if 200 <= outside.status < 300:
            raise Broken("it accepted the path ../agent-check.txt")
        return f"left {name}"

    async def _codeserver(self) -> str:
        seen = await self._offered("GET", "/dev/codeserver/status")
        _object(seen)
        return ""

    # -- how ---------------------------------------------------------------------------------------------------------

    async def _state(self) -> str:
        document = _object(_expect_200(await self._call("GET", PATHS["status"])))
        state = document.get("state")
        if not isinstance(state, str) or state not in _STATES:
            raise Broken(f"`state` is {_shown(state)}, which the contract does not know")
        return state

    async def _until_state(self, wanted: str) -> None:
        seen = ""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    seen = await self._state()
                    if seen == wanted:
                        return
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError as error:
            raise Broken(f"/status still says {seen} after {SETTLE_SECONDS:g} s, not {wanted}") from error

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    seen = await self._call("GET", PATHS["ready"])
                    if is_agent_ready_result(seen.status, seen.document):
                        return
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError as error:
            raise Broken(f"/ready is not true after {SETTLE_SECONDS:g} s") from error

    async def _offered(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> _Seen:
        seen = await self._call(method, target, body, headers=headers)
        if seen.status in (404, 501):
            raise NotOffered(f"answered {seen.status}")
        return _expect_2xx(seen)

    async def _call(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        token: str | None = "",
        headers: dict[str, str] | None = None,
    ) -> _Seen:
        """`token` "" stands for the right one, None for none."""
        given = self._token if token == "" else token
        own = {"Content-Type": "application/json", **(headers or {})}
        if given is not None:
            own["Authorization"] = f"Bearer {given}"
        seconds = self._deadline_seconds if method == "GET" else ACTION_SECONDS
        request = HTTPRequest(
            self._url + target,
            method=method,
            body=(body or b"") if method == "POST" else None,
            headers=own,
            follow_redirects=False,
            connect_timeout=self._deadline_seconds,
            request_timeout=seconds,
        )
        try:
            async with asyncio.timeout(seconds + 1):
                response = await self._client.fetch(request, raise_error=False)
        except Exception as error:
            # Whatever the client's parser and sockets raise: the agent did not answer properly.
            said = bounded_text(str(error), 120) or type(error).__name__
            raise Broken(f"{method} {target} got no proper answer: {said}") from error
        seen = _Seen(response.code, {name.lower(): value for name, value in response.headers.items()}, response.body)
        if 300 <= seen.status < 400:
            raise Broken(f"{method} {target} answered with a redirect ({seen.status})")
        return seen


def _expect_2xx(seen: _Seen) -> _Seen:
    if not 200 <= seen.status < 300:
        raise Broken(f"answered {seen.status}{_excerpt(seen.body)}")
    return seen


def _expect_200(seen: _Seen) -> _Seen:
    if seen.status != 200:
        raise Broken(f"answered {seen.status}{_excerpt(seen.body)}, not 200")
    return seen


def _object(seen: _Seen) -> dict[str, Any]:
    document = seen.document
    if not isinstance(document, dict):
        raise Broken(f"the body is not a JSON object{_excerpt(seen.body)}")
    return document


def _excerpt(body: bytes) -> str:
    text = bounded_text(body[:80].decode("utf-8", "replace"), 80)
    return f" ({text})" if text else ""


def _shown(value: object) -> str:
    return bounded_text(json.dumps(value, default=str), 60)
