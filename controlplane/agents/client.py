"""Every call to an agent that is no stream: paths, bearer token, deadlines, limits, and how refusals are told.

The console stream and uploads are proxied outside this module. What answers *mean* is decided in `readiness` and
`states`; bytes are moved by the transport (`http_connection`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from controlplane.agents.documents import bounded_text, parse_object
from controlplane.agents.readiness import is_agent_ready_result
from controlplane.errors import AgentProtocolError, AgentRefused, NotFound, Overloaded
from controlplane.models import AgentEndpoint
from controlplane.ports import AgentResponse, AgentTransport

PATHS = {
    "health": "/health",
    "ready": "/ready",
    "status": "/status",
    "start": "/start",
    "stop": "/stop",
    "restart": "/restart",
    "console_command": "/console/command",
    "console_stream": "/console/stream",
    "backups": "/game/backups",
    "backup_restore": "/game/backups/restore",
    "upload": "/game/files/upload",
    "codeserver_start": "/dev/codeserver/start",
    "codeserver_stop": "/dev/codeserver/stop",
    "codeserver_restart": "/dev/codeserver/restart",
    "codeserver_status": "/dev/codeserver/status",
}
"""Where each call lives on an agent: real agents differ in small things, and this is the one place to say so."""

BACKUP_ID_LIMIT = 200
POLL_BODY_LIMIT_BYTES = 256 << 10
"""For `/health`, `/ready` and `/status`: thousands may be under way at once."""

ACTIONS_PER_AGENT = 8
BACKUP_CALLS_PER_AGENT = 4
"""Forwarded calls under way to one agent; a further one is refused rather than queued. Calls about backups take
minutes, so they have places of their own and never keep a power command out."""

_SENTENCES = {
    "start": "The agent refused to start the workload.",
    "stop": "The agent refused to stop the workload.",
    "restart": "The agent refused to restart the workload.",
    "console_command": "The agent refused the console command.",
    "codeserver_start": "The agent refused to start code-server.",
    "codeserver_stop": "The agent refused to stop code-server.",
    "codeserver_restart": "The agent refused to restart code-server.",
    "codeserver_status": "The agent did not tell the state of code-server.",
    "backup_list": "The agent refused to list its backups.",
    "backup_create": "The agent refused to create a backup.",
    "backup_restore": "The agent refused to restore the backup.",
    "backup_delete": "The agent refused to delete the backup.",
}


@dataclass(frozen=True, slots=True)
class AgentReply:
    """A 2xx answer. `raw` is the body as it came, `document` its JSON object where it is one."""

    status: int
    raw: bytes
    content_type: str

    @property
    def document(self) -> dict[str, Any] | None:
        return parse_object(self.raw)


class AgentClient:
    """Times in seconds, limits in bytes. Any method may raise AgentUnreachable, AgentTimeout or AgentProtocolError."""

    def __init__(
        self,
        transport: AgentTransport,
        *,
        poll_timeout_seconds: float,
        action_timeout_seconds: float,
        backup_timeout_seconds: float,
        body_limit_bytes: int,
    ) -> None:
        self._transport = transport
        self._poll_timeout_seconds = poll_timeout_seconds
        self._action_timeout_seconds = action_timeout_seconds
        self._backup_timeout_seconds = backup_timeout_seconds
        self._body_limit_bytes = body_limit_bytes
        self._poll_body_limit_bytes = min(body_limit_bytes, POLL_BODY_LIMIT_BYTES)
        self._actions = _Places(ACTIONS_PER_AGENT)
        self._backup_calls = _Places(BACKUP_CALLS_PER_AGENT)

    # -- observation: whatever came back, also a refusal ---------------------------------------------------------------

    @property
    def poll_timeout_seconds(self) -> float:
        return self._poll_timeout_seconds

    def get_agent_health(
        self, endpoint: AgentEndpoint, timeout_seconds: float | None = None
    ) -> Awaitable[AgentResponse]:
        return self._observe(endpoint, PATHS["health"], timeout_seconds)

    def get_agent_ready(
        self, endpoint: AgentEndpoint, timeout_seconds: float | None = None
    ) -> Awaitable[AgentResponse]:
        """Transport alone: the answer as it came. Its meaning is `readiness.is_agent_ready_result`."""
        return self._observe(endpoint, PATHS["ready"], timeout_seconds)

    def get_agent_status(
        self, endpoint: AgentEndpoint, timeout_seconds: float | None = None
    ) -> Awaitable[AgentResponse]:
        return self._observe(endpoint, PATHS["status"], timeout_seconds)

    async def assert_agent_ready(self, endpoint: AgentEndpoint) -> None:
        """Raises AgentProtocolError (`not_ready`) unless the agent is semantically ready right now."""
        response = await self.get_agent_ready(endpoint)
        document = parse_object(response.body)
        if is_agent_ready_result(response.status, document):
            return
        reason = (document or {}).get("reason")
        said = f": {bounded_text(reason)}" if isinstance(reason, str) else ""
        raise AgentProtocolError(
            f"The agent is not ready (GET /ready answered {response.status}){said}.", code="not_ready"
        )

    def forget(self, endpoint: AgentEndpoint) -> None:
        self._transport.forget(endpoint)

    # -- actions: a 2xx reply, or AgentRefused with the agent's own answer -------------------------------------------

    async def start(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        return await self._act(endpoint, "start", request_id)

    async def stop(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        return await self._act(endpoint, "stop", request_id)

    async def restart(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        return await self._act(endpoint, "restart", request_id)

    async def send_console_command(self, endpoint: AgentEndpoint, command: str, *, request_id: str) -> AgentReply:
        """`command` is one line without its end."""
        return await self._act(endpoint, "console_command", request_id, orjson.dumps({"command": command}))

    async def start_codeserver(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        return await self._act(endpoint, "codeserver_start", request_id)

    async def stop_codeserver(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        return await self._act(endpoint, "codeserver_stop", request_id)

    async def restart_codeserver(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        return await self._act(endpoint, "codeserver_restart", request_id)

    async def get_codeserver_status(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        """AgentRefused with status 404 says that this agent does not offer it."""
        with self._actions.taken(endpoint):
            response = await self._transport.request(
                endpoint,
                "GET",
                PATHS["codeserver_status"],
                request_id=request_id,
                timeout_seconds=self._poll_timeout_seconds,
                body_limit_bytes=self._poll_body_limit_bytes,
            )
        return _accepted(response, _SENTENCES["codeserver_status"])

    async def list_backups(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        return await self._backup(endpoint, "backup_list", "GET", PATHS["backups"], request_id)

    async def create_backup(self, endpoint: AgentEndpoint, name: str | None, *, request_id: str) -> AgentReply:
        body = None if name is None else orjson.dumps({"name": name})
        return await self._backup(endpoint, "backup_create", "POST", PATHS["backups"], request_id, body)

    async def restore_backup(self, endpoint: AgentEndpoint, backup_id: str, *, request_id: str) -> AgentReply:
        target = f"{PATHS['backup_restore']}?id={quote(backup_id, safe='')}"
        return await self._backup(endpoint, "backup_restore", "POST", target, request_id)

    async def delete_backup(self, endpoint: AgentEndpoint, backup_id: str, *, request_id: str) -> AgentReply:
        """Raises NotFound for what cannot be one segment of a path."""
        if backup_id in (".", "..") or len(backup_id) > BACKUP_ID_LIMIT:
            raise NotFound
        target = f"{PATHS['backups']}/{quote(backup_id, safe='')}"
        return await self._backup(endpoint, "backup_delete", "DELETE", target, request_id)

    # -- within ------------------------------------------------------------------------------------------------------

    def _observe(self, endpoint: AgentEndpoint, target: str, timeout_seconds: float | None) -> Awaitable[AgentResponse]:
        return self._transport.request(
            endpoint,
            "GET",
            target,
            timeout_seconds=self._poll_timeout_seconds if timeout_seconds is None else timeout_seconds,
            body_limit_bytes=self._poll_body_limit_bytes,
        )

    async def _act(self, endpoint: AgentEndpoint, call: str, request_id: str, body: bytes | None = None) -> AgentReply:
        with self._actions.taken(endpoint):
            response = await self._transport.request(
                endpoint,
                "POST",
                PATHS[call],
                body=body,
                request_id=request_id,
                timeout_seconds=self._action_timeout_seconds,
                body_limit_bytes=self._body_limit_bytes,
            )
        return _accepted(response, _SENTENCES[call])

    async def _backup(
        self,
        endpoint: AgentEndpoint,
        call: str,
        method: str,
        target: str,
        request_id: str,
        body: bytes | None = None,
    ) -> AgentReply:
        with self._backup_calls.taken(endpoint):
            response = await self._transport.request(
                endpoint,
                method,
                target,
                body=body,
                request_id=request_id,
                timeout_seconds=self._backup_timeout_seconds,
                body_limit_bytes=self._body_limit_bytes,
            )
        return _accepted(response, _SENTENCES[call])


class _Places:
    """Counts the calls under way to each agent."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._under_way: Counter[tuple[str, int]] = Counter()

    @contextmanager
    def taken(self, endpoint: AgentEndpoint) -> Iterator[None]:
        """Raises Overloaded when every place is taken."""
        key = (endpoint.address, endpoint.port)
        if self._under_way[key] >= self._limit:
            raise Overloaded("Too many calls to this agent are under way; try again.")
        self._under_way[key] += 1
        try:
            yield
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]


def _accepted(response: AgentResponse, sentence: str) -> AgentReply:
    if 200 <= response.status < 300:
        return AgentReply(response.status, response.body, response.headers.get("content-type", ""))
    if response.status == 304 or not 300 <= response.status < 600:
        raise AgentProtocolError(f"The agent answered with status {response.status}, which is no answer to this call.")
    raise AgentRefused.from_body(sentence, status=response.status, body=response.body)
