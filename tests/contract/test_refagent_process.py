"""The life of the supervised process under the reference agent: real processes, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controlplane.refagent.console import Console
from controlplane.refagent.guard import GroupGuard
from controlplane.refagent.readiness import RunningIsReady
from controlplane.refagent.supervisor import Program, State, Supervisor
from tests.free_ports import free_port
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, AgentProcess, kill, python, until, until_gone

# A line that comes in pieces is shown in pieces when the rest is late: what tests look for is written at once.
ECHO = python("import sys\nfor line in sys.stdin: sys.stdout.write(line)\n")
STUBBORN = python(
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\nwhile True: time.sleep(1)\n"
)
TELLS_HOW_IT_ENDS = python(
    "import signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: (open('ended', 'w').write('signal'), sys.exit(0)))\n"
    "print('up')\n"
    "for line in sys.stdin:\n"
    "    if line == 'bye\\n': open('ended', 'w').write('line'); sys.exit(0)\n"
)
SHELL_WITH_HELPER = ("/bin/sh", "-c", f"{sys.executable} -c 'import time; time.sleep(600)' & echo up; wait")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("agent") / "data"
    with AgentProcess(folder, LINE_GAME, *GAME_OPTIONS) as agent:
        yield agent


@pytest.mark.gen_test
async def test_a_start_shows_as_starting_and_then_as_ready(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", ECHO, "--ready-pattern", "^up$") as agent:
        await agent.until_state("starting")
        await agent.command("up")
        await agent.until_ready()
        await agent.post("/stop")
        await agent.until_state("stopped")
        assert await agent.get("/ready") == {"ready": False, "reason": "the process is stopped"}
        answer = await agent.post("/start")
        assert (answer.status, answer.body) == (202, {"state": "starting"})
        assert (await agent.get("/status"))["state"] == "starting"
        assert (await agent.get("/ready"))["ready"] is False  # the line of the former run does not count
        await agent.command("up")
        await agent.until_ready()
        assert (await agent.get("/status"))["state"] == "running"


@pytest.mark.gen_test
async def test_start_and_stop_can_be_repeated(agent: AgentProcess) -> None:
    await agent.until_ready()
    pid = (await agent.get("/status"))["pid"]
    again = await agent.post("/start")
    assert (again.status, again.body) == (202, {"state": "running"})
    assert (await agent.get("/status"))["pid"] == pid
    assert (await agent.post("/stop")).body == {"state": "stopping"}
    assert (await agent.post("/stop")).status == 202
    await agent.until_state("stopped")
    assert (await agent.post("/stop")).body == {"state": "stopped"}
    refused = await agent.command("say hi")
    assert (refused.status, refused.body["code"]) == (409, "not_running")
    assert (await agent.post("/restart")).body == {"state": "starting"}
    await agent.until_ready()


@pytest.mark.gen_test
async def test_a_restart_brings_another_process(agent: AgentProcess) -> None:
    await agent.until_ready()
    pid = (await agent.get("/status"))["pid"]
    assert (await agent.post("/restart")).body == {"state": "stopping"}
    await until_gone(pid)
    await agent.until_ready()
    assert (await agent.get("/status"))["pid"] != pid


@pytest.mark.gen_test
async def test_a_start_while_stopping_is_refused(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", STUBBORN, "--ready-pattern", "up", "--stop-seconds", "60") as agent:
        await agent.until_ready()
        pid = (await agent.get("/status"))["pid"]
        await agent.post("/stop")
        for action in ("/start", "/restart"):
            refused = await agent.post(action)
            assert (refused.status, refused.body["code"]) == (409, "stopping")
        kill(pid)
        assert (await agent.until_state("stopped"))["error"] is None


@pytest.mark.gen_test
async def test_a_killed_process_shows_as_crashed_and_can_be_started(agent: AgentProcess) -> None:
    await agent.until_ready()
    kill((await agent.get("/status"))["pid"])
    status = await agent.until_state("crashed")
    assert status["error"] == "killed by SIGKILL"
    assert (await agent.get("/ready"))["ready"] is False
    await agent.post("/start")
    await agent.until_ready()
    assert (await agent.get("/status"))["error"] is None


@pytest.mark.gen_test
async def test_an_exit_status_is_told_and_a_quit_is_no_crash(agent: AgentProcess) -> None:
    await agent.until_ready()
    await agent.command("crash")
    assert (await agent.until_state("crashed"))["error"] == "exited with status 70"
    await agent.post("/start")
    await agent.until_ready()
    await agent.command("quit")
    assert (await agent.until_state("stopped"))["error"] is None
    await agent.post("/start")


@pytest.mark.gen_test
async def test_the_stop_line_comes_before_any_signal(tmp_path: Path) -> None:
    options = ("--ready-pattern", "up", "--stop-line", "bye", "--stop-seconds", "60")
    with AgentProcess(tmp_path / "data", TELLS_HOW_IT_ENDS, *options) as agent:
        await agent.until_ready()
        await agent.post("/stop")
        await agent.until_state("stopped")
        assert (agent.files / "ended").read_text() == "line"


@pytest.mark.gen_test
async def test_a_stop_line_that_is_not_heeded_is_followed_by_sigterm(tmp_path: Path) -> None:
    options = ("--ready-pattern", "up", "--stop-line", "please", "--stop-seconds", "0.2")
    with AgentProcess(tmp_path / "data", TELLS_HOW_IT_ENDS, *options) as agent:
        await agent.until_ready()
        await agent.post("/stop")
        await agent.until_state("stopped")
        assert (agent.files / "ended").read_text() == "signal"


@pytest.mark.gen_test
async def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", STUBBORN, "--ready-pattern", "up", "--stop-seconds", "0.2") as agent:
        await agent.until_ready()
        await agent.post("/stop")
        assert (await agent.until_state("stopped"))["error"] is None


@pytest.mark.gen_test
async def test_what_cannot_be_executed_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", ("no-such-program",)) as agent:
        status = await agent.until_state("error")
        assert status["error"] == "cannot execute 'no-such-program': No such file or directory"
        answer = await agent.post("/start")
        assert (answer.status, answer.body["code"]) == (500, "spawn_failed")
        assert (await agent.call("GET", "/health")).status == 200


@pytest.mark.gen_test
async def test_nothing_starts_where_that_was_not_asked_for(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", LINE_GAME, *GAME_OPTIONS, "--no-start-on-boot") as agent:
        assert (await agent.get("/status"))["state"] == "stopped"


@pytest.mark.gen_test
async def test_a_crash_is_followed_by_a_start_where_that_was_asked_for(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", LINE_GAME, *GAME_OPTIONS, "--crash-restart", "yes") as agent:
        await agent.until_ready()
        pid = (await agent.get("/status"))["pid"]
        console = await agent.console()
        kill(pid)
        await console.until_line("[agent] the server killed by SIGKILL")  # the state says so for a second
        await console.until_line("[agent] the server starts again in 1 s")
        await console.close()

        async def runs_anew() -> bool:
            status = await agent.get("/status")
            return bool(status["state"] == "running" and status["pid"] != pid)

        await until(runs_anew)


@pytest.mark.gen_test
async def test_a_stop_calls_off_the_start_that_is_due_after_a_crash(tmp_path: Path) -> None:
    """On this test's own loop, where nothing comes between the crash and the stop."""
    program = Program(
        name="the server",
        command=("/bin/sh", "-c", "exit 3"),
        folder=tmp_path,
        environment=os.environ,
        terminal=False,
        stop_line=None,
        stop_seconds=60,
        crash_restart=True,
    )
    guard = GroupGuard()
    try:
        supervisor = Supervisor(program, Console(max_lines=10), RunningIsReady(), guard)
        await supervisor.start()
        while supervisor.state is not State.CRASHED:  # noqa: ASYNC110 - looked at in every round of the loop
            await asyncio.sleep(0)
        await supervisor.stop()
        await asyncio.sleep(0)  # what was called off ends
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert supervisor.state is State.CRASHED
    finally:
        guard.end()


@pytest.mark.gen_test
async def test_an_open_port_can_be_the_sign_of_readiness(tmp_path: Path) -> None:
    port = free_port()
    listens_when_told = python(
        "import socket, sys\n"
        "print('up'); input()\n"
        f"server = socket.create_server(('127.0.0.1', {port})); print('open'); input()\n"
    )
    with AgentProcess(tmp_path / "data", listens_when_told, "--ready-port", str(port)) as agent:
        await agent.until_state("starting")
        assert await agent.get("/ready") == {
            "ready": False,
            "reason": f"port {port} has not accepted a connection since the start",
        }
        await agent.command("listen")
        await agent.until_ready()


@pytest.mark.gen_test
async def test_a_terminal_is_given_on_request(tmp_path: Path) -> None:
    asks = python(
        "import sys\nprint(f'terminal {sys.stdin.isatty()} {sys.stdout.isatty()}')\nprint(f'echo {input()}')\n"
    )
    with AgentProcess(tmp_path / "data", asks, "--pty", "--ready-pattern", "terminal True True") as agent:
        await agent.until_ready()
        console = await agent.console()
        await agent.command("hello")
        assert await console.until_line("hello") == "echo hello"
        await agent.until_state("stopped")
        await console.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.gen_test
async def test_an_agent_that_is_ended_stops_its_process_by_the_stop_line(tmp_path: Path, number: int) -> None:
    options = ("--ready-pattern", "up", "--stop-line", "bye", "--stop-seconds", "60")
    with AgentProcess(tmp_path / "data", TELLS_HOW_IT_ENDS, *options) as agent:
        await agent.until_ready()
        agent.process.send_signal(number)
        assert agent.process.wait(60) == 0
        assert (agent.files / "ended").read_text() == "line"


@pytest.mark.parametrize("command", [LINE_GAME, SHELL_WITH_HELPER], ids=["one process", "a shell with a helper"])
@pytest.mark.gen_test
async def test_an_agent_that_is_killed_leaves_no_process(tmp_path: Path, command: tuple[str, ...]) -> None:
    with AgentProcess(tmp_path / "data", command, "--ready-pattern", "World ready|up") as agent:
        await agent.until_ready()
        family = psutil.Process(agent.process.pid).children(recursive=True)
        assert len(family) >= 2
        agent.process.kill()
        agent.process.wait()
        for one in family:
            await until_gone(one.pid)


@pytest.mark.gen_test
async def test_a_stop_ends_the_whole_group(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", SHELL_WITH_HELPER, "--ready-pattern", "up") as agent:
        await agent.until_ready()
        shell = psutil.Process((await agent.get("/status"))["pid"])
        helpers = shell.children(recursive=True)
        assert helpers
        await agent.post("/stop")
        await agent.until_state("stopped")
        for one in helpers:
            await until_gone(one.pid)


@pytest.mark.gen_test
async def test_the_token_is_not_handed_to_the_process(tmp_path: Path) -> None:
    shows = python("import os\nprint(f'up {\"AGENT_TOKEN\" in os.environ}')\ninput()\n")
    with AgentProcess(tmp_path / "data", shows, "--ready-pattern", "up False") as agent:
        await agent.until_ready()


@pytest.mark.gen_test
async def test_input_that_is_never_read_is_refused_when_it_piles_up(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", STUBBORN, "--ready-pattern", "up", "--stop-seconds", "0.2") as agent:
        await agent.until_ready()

        async def refused() -> bool:
            answer = await agent.command("x" * 4000)
            return answer.status == 503 and answer.body["code"] == "input_full"

        await until(refused)
