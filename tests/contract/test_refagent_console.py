"""The console stream of the reference agent: scrollback, input, floods, slow clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.refagent_process import GAME_OPTIONS, LINE_GAME, AgentProcess, Console, python

FLOODS = python(
    "import sys\n"
    "print('up')\n"
    "block = ''.join(f'line {n}\\n' for n in range(2000))\n"
    "while True: sys.stdout.write(block)\n"
)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("agent") / "data"
    with AgentProcess(folder, LINE_GAME, *GAME_OPTIONS, "--console-lines", "50") as agent:
        yield agent


@pytest.mark.gen_test
async def test_a_new_stream_begins_with_the_scrollback(tmp_path: Path) -> None:
    """Of an agent of its own: what others make theirs print pushes the beginning out."""
    with AgentProcess(tmp_path / "data", LINE_GAME, *GAME_OPTIONS) as agent:
        await agent.until_ready()
        console = await agent.console()
        await console.until_line("World ready")
        assert console.lines[1] == "Starting Testholm"
        await console.close()


@pytest.mark.gen_test
async def test_text_frames_are_input_and_every_stream_sees_the_answer(agent: AgentProcess) -> None:
    await agent.until_ready()
    first, second = await agent.console(), await agent.console()
    await first.socket.write_message("say from the first\nsay and a second line")
    for console in (first, second):
        await console.until_line("[Server] from the first")
        await console.until_line("[Server] and a second line")
        await console.close()


@pytest.mark.gen_test
async def test_input_that_is_no_line_is_refused_on_the_stream(agent: AgentProcess) -> None:
    await agent.until_ready()
    console = await agent.console()
    await console.socket.write_message("say \x1b[2J")
    await console.until_line("[agent] not sent: command must be one line")
    await console.socket.write_message(b"\x00", binary=True)
    async with asyncio.timeout(60):
        while await console.socket.read_message() is not None:
            pass
    assert console.socket.close_code == 1003
    await console.close()


@pytest.mark.gen_test
async def test_every_line_of_a_burst_arrives_in_order(agent: AgentProcess) -> None:
    await agent.until_ready()
    console = await agent.console()
    await agent.command("flood 200000")
    await console.until_line("Flood over: 200000 lines")
    begun = console.lines.index("flood line 1 of 200000")
    ended = next(at for at, line in enumerate(console.lines) if line.startswith("Flood over"))
    burst = console.lines[begun:ended]
    # A game that is held up in the middle of a line has it shown in two pieces.
    assert "".join(burst) == "".join(f"flood line {number} of 200000" for number in range(1, 200_001))
    assert len(burst) >= 200_000
    await console.close()
    late = await agent.console()
    await late.until_line("Flood over: 200000 lines")
    assert len(late.lines) <= 50
    await late.close()


@pytest.mark.gen_test
async def test_a_flood_neither_grows_the_agent_nor_holds_up_its_answers(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", FLOODS, "--ready-pattern", "^up$") as agent:
        await agent.until_ready()
        process = psutil.Process(agent.process.pid)
        before = process.memory_info().rss
        received = asyncio.create_task(read_lines(agent, 1_000_000))
        answers = 0
        while not received.done() or answers < 5:
            assert (await agent.call("GET", "/health")).status == 200
            answers += 1
        await received
        assert process.memory_info().rss - before < 32 << 20


async def read_lines(agent: AgentProcess, at_least: int) -> None:
    """By one client after the other: on a busy machine one may be dropped for its slowness, as another test shows."""
    lines = 0
    while lines < at_least:
        console = await agent.console()
        while lines < at_least and isinstance(frame := await console.socket.read_message(), str):
            assert len(frame) < 80_000
            lines += frame.count("\n") + 1
        await console.close()


async def read_a_flood(agent: AgentProcess, console: Console) -> None:
    """Less than may wait for a client, so that nobody who reads is ever too slow."""
    await agent.command("flood 100000")
    await console.until_line("Flood over")
    console.lines.clear()


@pytest.mark.gen_test
async def test_a_client_that_never_reads_is_dropped_and_the_others_are_not(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", LINE_GAME, *GAME_OPTIONS) as agent:
        await agent.until_ready()
        slow, quick = await agent.console(), await agent.console()
        process = psutil.Process(agent.process.pid)
        port = slow.socket.protocol.stream.socket.getsockname()[1]  # type: ignore[union-attr]

        def slow_is_connected() -> bool:
            return any(
                getattr(connection.raddr, "port", None) == port and connection.status == psutil.CONN_ESTABLISHED
                for connection in process.net_connections("tcp")
            )

        assert slow_is_connected()
        while slow_is_connected():
            await read_a_flood(agent, quick)
        await read_a_flood(agent, quick)
        await quick.close()
        await slow.close()


@pytest.mark.gen_test
async def test_a_prompt_without_a_line_end_is_shown(tmp_path: Path) -> None:
    prompts = python("import sys\nprint('up')\nsys.stdout.write('name? ')\nprint(f'hello {input()}')\ninput()\n")
    with AgentProcess(tmp_path / "data", prompts, "--ready-pattern", "^up$") as agent:
        await agent.until_ready()
        console = await agent.console()
        assert await console.until_line("name?") == "name? "
        await agent.command("Ada")
        assert await console.until_line("hello") == "hello Ada"
        await console.close()


@pytest.mark.gen_test
async def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    noisy = python(
        "import sys\nout = sys.stdout.buffer\n"
        "out.write(b'\\xff\\xfe caf\\xc3\\xa9\\r\\n' + b'y' * 100000 + b'\\nend\\n')\n"
        "out.flush()\ninput()\n"
    )
    with AgentProcess(tmp_path / "data", noisy, "--ready-pattern", "^end$") as agent:
        await agent.until_ready()
        console = await agent.console()
        await console.until_line("end")
        assert console.lines[1] == "\ufffd\ufffd café"
        assert sum(line.count("y") for line in console.lines) == 100_000
        assert max(map(len, console.lines)) <= 64 << 10
        await console.close()


@pytest.mark.gen_test
async def test_the_number_of_streams_is_bounded(agent: AgentProcess) -> None:
    await agent.until_ready()
    consoles = [await agent.console() for _ in range(16)]
    refused = await agent.call("GET", "/console/stream")
    assert (refused.status, refused.body["code"]) == (503, "too_many_streams")
    for console in consoles:
        await console.close()
