"""The conformance checks: the reference agent passes, every kind of broken agent fails by the name of the clause."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controlplane.agents.conformance import run_agent_check
from tests.broken_agents import KINDS, SocketAgent
from tests.broken_agents import TOKEN as TOKEN_OF_BROKEN
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, TOKEN, AgentProcess

PATIENT_SECONDS = 30.0
"""Longer than a machine holds up an agent, or this process, that is about to answer."""


@pytest.mark.gen_test(timeout=110)
async def test_the_reference_agent_passes(tmp_path: Path) -> None:
    lines: list[str] = []
    with AgentProcess(tmp_path / "agent", LINE_GAME, *GAME_OPTIONS) as agent:
        assert await run_agent_check(agent.url, TOKEN, lines.append, deadline_seconds=PATIENT_SECONDS) == 0, "\n".join(
            lines
        )
    assert not [line for line in lines if line.startswith("FAIL")]
    assert "not offered  GET /dev/codeserver/status" in "\n".join(lines)
    assert lines[-1] == "the agent keeps the contract"


@pytest.mark.gen_test(timeout=60)
async def test_a_wrong_token_is_told(tmp_path: Path) -> None:
    lines: list[str] = []
    with AgentProcess(tmp_path / "agent", LINE_GAME, *GAME_OPTIONS) as agent:
        wrong = "not-the-token"
        assert await run_agent_check(agent.url, wrong, lines.append, deadline_seconds=PATIENT_SECONDS) == 1
    assert lines[0].startswith("FAIL")
    assert "401" in lines[0]


@pytest.mark.gen_test(timeout=90)
async def test_every_kind_of_broken_agent_fails_by_the_name_of_the_clause() -> None:
    async def check(name: str) -> None:
        lines: list[str] = []
        seconds = 1 if KINDS[name].reason == "agent_timeout" else PATIENT_SECONDS
        async with SocketAgent(KINDS[name].behave) as agent:
            assert await run_agent_check(agent.url, TOKEN_OF_BROKEN, lines.append, deadline_seconds=seconds) == 1, name
        first = next(line for line in lines if line.startswith("FAIL"))
        assert KINDS[name].clause in first, f"{name}: {lines}"

    assert len(KINDS) >= 10
    await asyncio.gather(*(check(name) for name in KINDS))
