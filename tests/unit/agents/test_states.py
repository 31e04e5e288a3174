"""Normalization: three axes, nothing invented, and what an unreachable agent keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from controlplane.agents.states import Observation, Outcome, is_stale, next_state, state_json_around_age
from controlplane.errors import AgentProtocolError, AgentTimeout, AgentUnreachable
from controlplane.models import AgentState, Connection, Process, Readiness, Suspension
from controlplane.ports import AgentResponse

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NEW = AgentState("gs_1")


def ok(document: Any, status: int = 200) -> AgentResponse:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return AgentResponse(status, {}, body)


def seen(ready: Outcome | None = None, status: Outcome | None = None) -> Observation:
    return Observation(ok({}), ready or ok({"ready": True}), status or ok({"state": "running"}))


RUNNING = next_state(NEW, seen(), NOW)
DOWN = Observation(AgentUnreachable("The agent cannot be reached: refused."))


def after(state: AgentState, *observations: Observation) -> AgentState:
    for number, observation in enumerate(observations, 1):
        state = next_state(state, observation, NOW + timedelta(seconds=number))
    return state


def test_a_new_agent_is_connecting_and_stale() -> None:
    assert (NEW.connection, NEW.readiness, NEW.process) == (Connection.CONNECTING, Readiness.UNKNOWN, Process.UNKNOWN)
    assert is_stale(NEW, NOW, 30)


def test_semantic_success_is_ready_connected_and_healthy() -> None:
    assert RUNNING.connection is Connection.CONNECTED
    assert RUNNING.readiness is Readiness.READY
    assert RUNNING.ready
    assert RUNNING.process is Process.RUNNING
    assert (RUNNING.healthy, RUNNING.reason) == (True, "ok")
    assert RUNNING.first_seen_at == RUNNING.last_seen_at == RUNNING.last_ready_at == RUNNING.observed_at == NOW
    assert not is_stale(RUNNING, NOW + timedelta(seconds=30), 30)
    assert is_stale(RUNNING, NOW + timedelta(seconds=31), 30)


@pytest.mark.parametrize(
    ("word", "process"),
    [("installing", Process.INSTALLING), ("starting", Process.STARTING), ("running", Process.RUNNING),
     ("stopping", Process.STOPPING), ("stopped", Process.STOPPED), ("crashed", Process.CRASHED),
     ("error", Process.CRASHED)],
)  # fmt: skip
def test_every_state_of_the_contract_has_its_process(word: str, process: Process) -> None:
    assert after(NEW, seen(ok({"ready": False}), ok({"state": word}))).process is process


@pytest.mark.parametrize("state", ["on fire", "Running", "unknown", "", None, 1, ["running"], {"$gt": ""}])
def test_a_state_of_its_own_is_unknown_and_unhealthy(state: object) -> None:
    result = after(RUNNING, seen(status=ok({"state": state})))
    assert (result.process, result.healthy, result.reason) == (Process.UNKNOWN, False, "status_invalid")


@pytest.mark.parametrize(
    ("ready", "readiness", "reason"),
    [
        (ok({"ready": False}), Readiness.NOT_READY, "not_ready"),
        (ok({"ready": True}, 503), Readiness.NOT_READY, "not_ready"),
        (ok({"ready": True}, 204), Readiness.NOT_READY, "not_ready"),
        (ok({"ready": "true"}), Readiness.NOT_READY, "ready_invalid"),
        (ok({}), Readiness.NOT_READY, "ready_invalid"),
        (ok([True]), Readiness.NOT_READY, "ready_invalid"),
        (ok(b"<html>ok</html>"), Readiness.NOT_READY, "ready_invalid"),
        (ok(b'{"ready": tru'), Readiness.NOT_READY, "ready_invalid"),
        (AgentTimeout("late"), Readiness.UNKNOWN, "ready_timeout"),
        (AgentProtocolError("odd", code="body_too_large"), Readiness.UNKNOWN, "ready_body_too_large"),
    ],
)
def test_anything_short_of_semantic_success_is_not_ready(ready: Outcome, readiness: Readiness, reason: str) -> None:
    result = after(RUNNING, seen(ready=ready))
    assert not result.ready
    assert (result.readiness, result.healthy, result.reason) == (readiness, False, reason)
    assert result.connection is Connection.CONNECTED
    assert result.last_ready_at == NOW


def test_not_ready_while_it_starts_is_starting_and_no_fault() -> None:
    result = after(RUNNING, seen(ok({"ready": False}), ok({"state": "starting"})))
    assert (result.readiness, result.healthy, result.reason) == (Readiness.STARTING, True, "starting")


def test_a_stopped_workload_is_healthy_and_not_ready() -> None:
    result = after(RUNNING, seen(ok({"ready": False}), ok({"state": "stopped"})))
    assert (result.ready, result.healthy, result.reason) == (False, True, "stopped")


def test_a_crash_says_why() -> None:
    result = after(RUNNING, seen(ok({"ready": False}), ok({"state": "crashed", "error": "killed by SIGKILL"})))
    assert (result.process, result.healthy, result.reason) == (Process.CRASHED, False, "process_crashed")
    assert "killed by SIGKILL" in result.message


def test_one_failure_is_not_ready_any_more_but_still_connected() -> None:
    result = after(RUNNING, DOWN)
    assert (result.ready, result.readiness) == (False, Readiness.UNKNOWN)
    assert result.connection is Connection.CONNECTED
    assert is_stale(result, NOW, 30)


def test_three_failures_disconnect_and_the_process_is_kept() -> None:
    assert after(RUNNING, DOWN, DOWN).connection is Connection.CONNECTED
    result = after(RUNNING, DOWN, DOWN, DOWN)
    assert result.connection is Connection.DISCONNECTED
    assert result.process is Process.RUNNING
    assert result.reason == "agent_unreachable"
    assert result.last_seen_at == NOW


def test_an_agent_that_goes_away_in_the_middle_of_a_poll_keeps_its_process_and_is_stale() -> None:
    gone = AgentUnreachable("The agent cannot be reached: reset.")
    state = after(RUNNING, seen(ready=gone, status=gone))
    assert (state.process, state.ready, state.healthy) == (Process.RUNNING, False, False)
    assert is_stale(state, NOW, 30)
    assert after(state, DOWN, DOWN, DOWN).process is Process.RUNNING


def test_one_answer_connects_again() -> None:
    result = after(RUNNING, DOWN, DOWN, DOWN, DOWN, seen())
    assert (result.connection, result.ready, result.consecutive_failures) == (Connection.CONNECTED, True, 0)
    assert result.first_seen_at == NOW


def test_an_agent_that_was_never_reached_goes_from_connecting_to_disconnected() -> None:
    assert after(NEW, DOWN, DOWN).connection is Connection.CONNECTING
    assert after(NEW, DOWN, DOWN, DOWN).connection is Connection.DISCONNECTED


@pytest.mark.parametrize("status", [302, 401, 404, 500])
def test_health_other_than_2xx_counts_as_a_failure(status: int) -> None:
    result = after(RUNNING, Observation(ok({}, status)))
    assert (result.reason, result.consecutive_failures) == ("agent_refused", 1)
    assert str(status) in result.message


def test_revision_and_changed_at_move_with_what_is_visible_only() -> None:
    again = next_state(RUNNING, seen(), NOW + timedelta(seconds=10))
    assert again.revision == RUNNING.revision
    assert again.changed_at == NOW
    assert again.observed_at == NOW + timedelta(seconds=10)
    grown = next_state(again, seen(status=ok({"state": "running", "cpuPercent": 3})), NOW + timedelta(seconds=20))
    assert grown.revision == again.revision + 1
    assert grown.changed_at == NOW + timedelta(seconds=20)


def test_the_detail_keeps_the_contracts_types_and_bounds_the_rest() -> None:
    detail = after(
        NEW,
        seen(
            status=ok(
                {
                    "state": "running",
                    "version": "1.2",
                    "uptimeSeconds": 5,
                    "players": {"online": 3, "max": "many", "names": ["x"]},
                    "cpuPercent": -1,
                    "memory": [1],
                    "disk": {"usedBytes": 10, "limitBytes": 20},
                    "map": "island",
                }
            )
        ),
    ).detail
    assert detail == {
        "version": "1.2",
        "uptimeSeconds": 5,
        "players": {"online": 3, "max": None},
        "disk": {"usedBytes": 10, "limitBytes": 20},
        "map": "island",
    }


def rendered(state: AgentState, **more: Any) -> dict[str, Any]:
    options = {"suspension": None, "operation": None, "stale": False, **more}
    ahead, behind = state_json_around_age(state, **options)
    document: dict[str, Any] = orjson.loads(ahead + b"1500" + behind)
    return document


def test_the_json_has_every_field_of_the_api() -> None:
    document = rendered(
        RUNNING, suspension=Suspension("unpaid", NOW), operation={"id": "op_1", "kind": "x", "phase": "y"}
    )
    assert list(document) == [
        "connection", "readiness", "ready", "process", "health", "suspension", "operation", "observedAt", "ageMs",
        "stale", "firstSeenAt", "lastSeenAt", "lastReadyAt", "changedAt", "revision", "detail",
    ]  # fmt: skip
    assert document["ageMs"] == 1500
    assert document["observedAt"] == "2026-01-01T12:00:00.000Z"
    assert document["suspension"] == {"reason": "unpaid", "since": "2026-01-01T12:00:00.000Z"}
    assert document["health"] == {"healthy": True, "reason": "ok", "message": "The workload is ready."}


def test_a_stale_state_is_never_ready() -> None:
    assert rendered(RUNNING, stale=True)["ready"] is False
    assert rendered(NEW, stale=True)["observedAt"] is None
