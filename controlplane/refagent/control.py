"""Liveness, readiness, status, power, console lines: the routes that answer at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from controlplane.refagent.faults import AgentFault
from controlplane.refagent.http import Guarded
from controlplane.refagent.supervisor import Supervisor
from controlplane.refagent.usage import UsageMeter

COMMAND_LIMIT = 4096  # characters


class Health(Guarded):
    def get(self) -> None:
        self.reply({"status": "ok"})


class Ready(Guarded):
    def initialize(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def get(self) -> None:
        self.reply({"ready": self._supervisor.ready, "reason": self._supervisor.reason})


class Status(Guarded):
    def initialize(self, supervisor: Supervisor, meter: UsageMeter, memory_limit_bytes: int) -> None:
        self._supervisor = supervisor
        self._meter = meter
        self._memory_limit_bytes = memory_limit_bytes

    async def get(self) -> None:
        disk = await self._meter.disk()
        # All of one moment: a program may end, and another start, during every wait.
        pid, uptime = self._supervisor.pid, self._supervisor.uptime_seconds
        body: dict[str, Any] = {"state": self._supervisor.state, "error": self._supervisor.error}
        if disk is not None:
            body["disk"] = {"usedBytes": disk.used_bytes, "limitBytes": disk.limit_bytes}
        if pid is not None and uptime is not None:
            usage = await self._meter.process(pid)
            body |= {
                "pid": pid,
                "uptimeSeconds": round(uptime, 3),
                "cpuPercent": usage.cpu_percent,
                "memory": {"usedBytes": usage.memory_bytes, "limitBytes": self._memory_limit_bytes},
            }
        self.reply(body)


class Power(Guarded):
    """start, stop and restart of one supervised program; 202 with the state that it is in now."""

    def initialize(self, supervisor: Supervisor | None, missing: str = "") -> None:
        self._supervisor = supervisor
        self._missing = missing

    async def post(self, action: str) -> None:
        supervisor = offered(self._supervisor, self._missing)
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "start": supervisor.start,
            "stop": supervisor.stop,
            "restart": supervisor.restart,
        }
        await actions[action]()
        self.reply({"state": supervisor.state}, 202)


class CodeserverStatus(Guarded):
    def initialize(self, supervisor: Supervisor | None, missing: str, port: int) -> None:
        self._supervisor = supervisor
        self._missing = missing
        self._port = port

    def get(self) -> None:
        supervisor = offered(self._supervisor, self._missing)
        self.reply(
            {
                "state": supervisor.state,
                "ready": supervisor.ready,
                "reason": supervisor.reason,
                "error": supervisor.error,
                "port": self._port,
                "pid": supervisor.pid,
            }
        )


class ConsoleCommand(Guarded):
    def initialize(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def post(self) -> None:
        body = self.json_object()
        unknown = sorted(set(body) - {"command"})
        if unknown:
            raise AgentFault(422, "validation_failed", f"Unknown keys: {', '.join(unknown)[:200]}.")
        self._supervisor.send_line(one_line(body.get("command")))
        self.reply({"accepted": True})


def offered(supervisor: Supervisor | None, missing: str) -> Supervisor:
    if supervisor is None:
        raise AgentFault(404, "not_offered", missing)
    return supervisor


def one_line(command: object) -> str:
    """A command as it may be written to a console. Raises AgentFault 422."""
    if not isinstance(command, str) or not command.strip():
        raise AgentFault(422, "validation_failed", "command must be a string that is not empty.")
    if len(command) > COMMAND_LIMIT:
        raise AgentFault(422, "validation_failed", f"command may have {COMMAND_LIMIT} characters.")
    if any(character < " " and character != "\t" for character in command) or "\x7f" in command:
        raise AgentFault(422, "validation_failed", "command must be one line without control characters.")
    try:
        command.encode()
    except UnicodeEncodeError:
        raise AgentFault(422, "validation_failed", "command holds half a surrogate pair.") from None
    return command
