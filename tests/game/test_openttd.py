"""A real dedicated game server under the reference agent: OpenTTD from Debian (`make game-check`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_trees import sizes_below
from tests.game.server import HELD_BACK, OPENTTD, openttd_agent
from tests.refagent_process import AgentProcess, kill, until, until_gone

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with openttd_agent(tmp_path_factory.mktemp("openttd")) as agent:
        yield agent


@pytest.mark.gen_test(timeout=280)
async def test_the_server_is_seen_starting_and_then_ready(agent: AgentProcess) -> None:
    await agent.until_ready(60)
    await agent.post("/stop")
    await agent.until_state("stopped")
    held_back = agent.folder.parent / HELD_BACK
    held_back.touch()
    await agent.post("/start")
    assert (await agent.get("/status"))["state"] == "starting"
    assert (await agent.get("/ready"))["ready"] is False
    held_back.unlink()
    await agent.until_ready(60)
    status = await agent.get("/status")
    assert status["state"] == "running"

    async def memory_is_real() -> bool:
        return bool((await agent.get("/status"))["memory"]["usedBytes"] > 10 << 20)

    await until(memory_is_real)
    assert os.readlink(f"/proc/{status['pid']}/exe") == str(OPENTTD)


@pytest.mark.gen_test(timeout=280)
async def test_a_console_command_is_answered(agent: AgentProcess) -> None:
    await agent.until_ready(60)
    console = await agent.console()
    assert (await agent.command('say "the first train leaves at noon"')).status == 200
    await console.until_line("the first train leaves at noon")
    assert (await agent.command("save first")).status == 200
    await console.until_line("Map successfully saved to 'first.sav'")
    await console.close()
    assert list(agent.files.rglob("first.sav"))


@pytest.mark.gen_test(timeout=280)
async def test_a_backup_and_a_restore_bring_a_save_back(agent: AgentProcess) -> None:
    await agent.until_ready(60)
    await agent.command("save kept")

    async def saved() -> list[Path]:
        sizes = sizes_below(agent.files)
        return [agent.files / path for path, size in sizes.items() if path.name == "kept.sav" and size > 0]

    save = (await until(saved))[0]
    console = await agent.console()
    await console.until_line("Map successfully saved to 'kept.sav'")
    await console.close()
    content = save.read_bytes()
    backup = (await agent.post("/game/backups")).body
    save.write_bytes(b"spoilt")
    assert (await agent.post(f"/game/backups/restore?id={backup['id']}")).status == 200
    assert save.read_bytes() == content
    await agent.until_ready(60)
    console = await agent.console()
    await console.until_line("Map generated, starting game", 60)
    console.lines.clear()
    await agent.command("load kept")
    await console.until_line("Listening on", 60)  # said again once the loaded map is up
    await agent.command('say "back again"')
    await console.until_line("back again")
    await console.close()


@pytest.mark.gen_test(timeout=280)
async def test_a_stop_by_the_console_line_ends_it_cleanly(agent: AgentProcess) -> None:
    await agent.until_ready(60)
    pid = (await agent.get("/status"))["pid"]
    await agent.post("/stop")
    assert (await agent.until_state("stopped", "crashed"))["state"] == "stopped"
    await until_gone(pid)
    await agent.post("/start")


@pytest.mark.gen_test(timeout=280)
async def test_a_killed_server_shows_as_crashed_and_comes_back(agent: AgentProcess) -> None:
    await agent.until_ready(60)
    pid = (await agent.get("/status"))["pid"]
    kill(pid)
    assert (await agent.until_state("crashed"))["error"] == "killed by SIGKILL"
    assert (await agent.get("/ready"))["ready"] is False
    await agent.post("/start")
    await agent.until_ready(60)
    pid = (await agent.get("/status"))["pid"]
    assert (await agent.post("/restart")).body["state"] == "stopping"
    await agent.until_ready(60)
    assert (await agent.get("/status"))["pid"] != pid
