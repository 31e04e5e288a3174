"""Agent states: bulk writes that a former holder of the lease cannot spoil."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.models import AgentState, Connection, Process, Readiness
from controlplane.storage.agent_states import MongoAgentStateRepository
from controlplane.storage.database import Database
from tests.contract.storage.moments import NOW


def state(number: int = 1, **changes: Any) -> AgentState:
    plain = AgentState(
        instance_id=f"gs_{number:03}",
        connection=Connection.CONNECTED,
        readiness=Readiness.READY,
        ready=True,
        process=Process.RUNNING,
        healthy=True,
        reason="ok",
        message="The server is ready.",
        confirmed=True,
        observed_at=NOW,
        first_seen_at=NOW,
        last_seen_at=NOW,
        last_ready_at=NOW,
        changed_at=NOW,
        revision=4,
        detail={"players": 3, "version": "14.1"},
    )
    return replace(plain, **changes)


@pytest.fixture
def states(database: Database) -> MongoAgentStateRepository:
    return MongoAgentStateRepository(database)


@pytest.mark.gen_test
async def test_states_come_back_as_they_were_saved(states: MongoAgentStateRepository) -> None:
    never_seen = AgentState("gs_900", consecutive_failures=3)
    await states.save_many([state(1), never_seen], fence=1)
    assert sorted(await states.load_all(), key=lambda each: each.instance_id) == [state(1), never_seen]


@pytest.mark.gen_test
async def test_a_later_save_replaces_the_whole_state(states: MongoAgentStateRepository) -> None:
    await states.save_many([state(1)], fence=1)
    changed = state(1, ready=False, detail={}, revision=5, last_ready_at=None)
    await states.save_many([changed], fence=1)
    assert await states.load_all() == [changed]


@pytest.mark.gen_test
async def test_rows_of_a_higher_fence_are_left_alone(states: MongoAgentStateRepository) -> None:
    await states.save_many([state(1, message="from the new holder")], fence=7)
    await states.save_many([state(1, message="from the former"), state(2)], fence=6)
    await states.touch_observed(["gs_001", "gs_002"], NOW + timedelta(minutes=1), fence=6)
    stored = {each.instance_id: each for each in await states.load_all()}
    assert stored["gs_001"] == state(1, message="from the new holder")
    later = NOW + timedelta(minutes=1)
    assert stored["gs_002"] == state(2, observed_at=later, last_seen_at=later)


@pytest.mark.gen_test
async def test_a_touch_never_moves_the_observation_back(states: MongoAgentStateRepository) -> None:
    await states.save_many([state(1), state(2)], fence=1)
    await states.touch_observed(["gs_001", "gs_404"], NOW - timedelta(hours=1), fence=1)
    assert sorted(await states.load_all(), key=lambda each: each.instance_id) == [state(1), state(2)]


@pytest.mark.parametrize("count", [1, 50, 51, 120])
@pytest.mark.gen_test
async def test_a_touch_reaches_every_row(states: MongoAgentStateRepository, count: int) -> None:
    rows = [state(number) for number in range(count)]
    await states.save_many(rows, fence=1)
    later = NOW + timedelta(seconds=9)
    await states.touch_observed([each.instance_id for each in rows], later, fence=2)
    assert [each.observed_at for each in await states.load_all()] == [later] * count


@pytest.mark.gen_test
async def test_nothing_to_write_is_no_command(states: MongoAgentStateRepository) -> None:
    await states.save_many([], fence=1)
    await states.touch_observed([], NOW, fence=1)
    assert await states.load_all() == []


@pytest.mark.gen_test
async def test_others_see_what_was_saved_and_touched_since(states: MongoAgentStateRepository) -> None:
    await states.save_many([state(1), state(2)], fence=1)
    everything, moment = await states.changed_since(None)
    assert len(everything) == 2
    await states.touch_observed(["gs_002"], NOW + timedelta(seconds=5), fence=1)
    changed, later = await states.changed_since(moment)
    assert NOW + timedelta(seconds=5) in {each.observed_at for each in changed}
    assert (await states.changed_since(later + timedelta(minutes=1)))[0] == []


@pytest.mark.gen_test
async def test_details_hold_whatever_an_agent_reports(states: MongoAgentStateRepository) -> None:
    odd = {"$set": 1, "a.b": "$literal", "": None, "big": 1 << 80, "half": "\ud800", "zero\x00": [1.5, True]}
    await states.save_many([state(1, detail=odd, message="$message", reason="$$ROOT")], fence=1)
    assert await states.load_all() == [state(1, detail=odd, message="$message", reason="$$ROOT")]


@pytest.mark.gen_test
async def test_a_removed_state_is_gone(states: MongoAgentStateRepository) -> None:
    await states.save_many([state(1), state(2)], fence=1)
    await states.remove("gs_001")
    await states.remove("gs_404")
    assert await states.load_all() == [state(2)]
