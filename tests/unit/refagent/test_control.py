from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.testing import bind_unused_port
from tornado.web import Application  # noqa: TID251 - to stand one handler of the reference agent in

from controlplane.refagent.control import Status
from controlplane.refagent.supervisor import State
from controlplane.refagent.usage import ProcessUsage

TOKEN = "test-token-0123456789"


@dataclass
class FakeSupervisor:
    state: State
    pid: int | None
    uptime_seconds: float | None
    error: str | None = None


class SlowMeter:
    """The program ends and another starts while the disk is measured."""

    def __init__(self, supervisor: FakeSupervisor) -> None:
        self._supervisor = supervisor

    async def disk(self) -> None:
        self._supervisor.state, self._supervisor.pid, self._supervisor.uptime_seconds = State.STARTING, 202, 0.5

    async def process(self, pid: int) -> ProcessUsage:
        return ProcessUsage(cpu_percent=0.0, memory_bytes=pid)


@pytest.mark.parametrize("before", [101, None])
@pytest.mark.gen_test
async def test_a_status_is_of_one_moment_however_long_the_disk_takes(before: int | None) -> None:
    supervisor = FakeSupervisor(State.STOPPING, before, None if before is None else 60.0)
    parts: dict[str, Any] = {"supervisor": supervisor, "meter": SlowMeter(supervisor), "memory_limit_bytes": 1 << 30}
    server = HTTPServer(Application([("/status", Status, parts)], token=TOKEN))
    listener, port = bind_unused_port()
    server.add_socket(listener)
    client = SimpleAsyncHTTPClient(force_instance=True)
    try:
        url = f"http://127.0.0.1:{port}/status"
        answer = await client.fetch(HTTPRequest(url, headers={"Authorization": f"Bearer {TOKEN}"}))
    finally:
        server.stop()
        await server.close_all_connections()
        client.close()
    status = json.loads(answer.body)
    assert (status["state"], status["pid"], status["uptimeSeconds"]) == ("starting", 202, 0.5)
