"""The code-server controls of the reference agent, over a real process that listens on a port."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.free_ports import free_port
from tests.refagent_process import AgentProcess, kill, until, until_gone


@pytest.mark.gen_test
async def test_codeserver_is_started_seen_ready_restarted_and_stopped(tmp_path: Path) -> None:
    port = free_port()
    options = (
        *("--codeserver-command", f"{sys.executable} -m http.server --bind 127.0.0.1 {port}"),
        *("--codeserver-port", str(port)),
        "--no-start-on-boot",
    )
    with AgentProcess(tmp_path / "data", ("/bin/sh", "-c", "cat"), *options) as agent:
        status = await agent.get("/dev/codeserver/status")
        assert (status["state"], status["ready"], status["port"]) == ("stopped", False, port)

        async def ready() -> int:
            now = await agent.get("/dev/codeserver/status")
            return int(now["pid"]) if now["ready"] and now["state"] == "running" else 0

        assert (await agent.post("/dev/codeserver/start")).body == {"state": "starting"}
        first = await until(ready)
        assert (await agent.get("/status"))["state"] == "stopped"  # the workload is another matter
        assert (await agent.post("/dev/codeserver/restart")).status == 202
        await until_gone(first)
        second = await until(ready)
        kill(second)

        async def crashed() -> bool:
            return bool((await agent.get("/dev/codeserver/status"))["error"] == "killed by SIGKILL")

        await until(crashed)
        await agent.post("/dev/codeserver/start")
        third = await until(ready)
        assert (await agent.post("/dev/codeserver/stop")).status == 202
        await until_gone(third)
