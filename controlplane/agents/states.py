"""From what an agent answered to the normalized state, and from the state to JSON. Pure: no I/O, no clock.

The axes are separate on purpose (docs/api.md, "Instances"): liveness from `/health`, semantic readiness from `/ready`,
the process from `/status`. Nothing is invented: what could not be observed is unknown or kept and marked stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from controlplane.agents.documents import bounded_detail, bounded_number, bounded_text, bounded_value, parse_object
from controlplane.agents.readiness import is_agent_ready_result
from controlplane.clock import rfc3339
from controlplane.errors import AgentError, AgentUnreachable
from controlplane.models import AgentState, Connection, Process, Readiness, Suspension
from controlplane.ports import AgentResponse

FAILURES_TO_DISCONNECT = 3

_PROCESSES: Mapping[str, Process] = {
    **{process.value: process for process in Process if process is not Process.UNKNOWN},
    "error": Process.CRASHED,
}
_UNDER_WAY = frozenset({Process.INSTALLING, Process.STARTING, Process.STOPPING})
_NUMBERS = ("uptimeSeconds", "cpuPercent")
_QUANTITIES: Mapping[str, tuple[str, ...]] = {
    "players": ("online", "max"),
    "memory": ("usedBytes", "limitBytes"),
    "disk": ("usedBytes", "limitBytes"),
}
_READ_FROM_STATUS = frozenset({"state", "version", "error", *_NUMBERS, *_QUANTITIES})

Outcome = AgentResponse | AgentError
"""One GET: the answer, or why there is none."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One poll. `ready` and `status` are None where `/health` failed, since they were not asked."""

    health: Outcome
    ready: Outcome | None = None
    status: Outcome | None = None


@dataclass(frozen=True, slots=True)
class _Verdict:
    healthy: bool
    reason: str
    message: str


def next_state(previous: AgentState, observation: Observation, now: datetime) -> AgentState:
    """The state after a poll that ended at `now`."""
    failure = _failure(observation.health, "GET /health")
    if failure is not None:
        return _with_changes(previous, _unreached(previous, failure), now)
    assert observation.ready is not None
    assert observation.status is not None
    return _with_changes(previous, _reached(previous, observation.ready, observation.status, now), now)


def _unreached(previous: AgentState, failure: _Verdict) -> AgentState:
    """Keeps the last process: silence is no news of it."""
    failures = previous.consecutive_failures + 1
    return replace(
        previous,
        connection=Connection.DISCONNECTED if failures >= FAILURES_TO_DISCONNECT else previous.connection,
        readiness=Readiness.UNKNOWN,
        ready=False,
        healthy=False,
        reason=failure.reason,
        message=failure.message,
        confirmed=False,
        consecutive_failures=failures,
    )


def _reached(previous: AgentState, ready: Outcome, status: Outcome, now: datetime) -> AgentState:
    ready_document = _document(ready)
    status_document = _document(status)
    is_ready = isinstance(ready, AgentResponse) and is_agent_ready_result(ready.status, ready_document)
    process, status_problem = _process(status, status_document)
    if went_away := isinstance(status, AgentUnreachable):
        process = previous.process  # silence is no news of it here either
    return replace(
        previous,
        connection=Connection.CONNECTED,
        readiness=_readiness(is_ready, ready, process),
        ready=is_ready,
        process=process,
        confirmed=not went_away,
        consecutive_failures=0,
        observed_at=previous.observed_at if went_away else now,
        first_seen_at=previous.first_seen_at or now,
        last_seen_at=now,
        last_ready_at=now if is_ready else previous.last_ready_at,
        detail=previous.detail if went_away else _detail(status_document),
        **_health_fields(
            _ready_problem(ready, ready_document)
            or status_problem
            or _judge(is_ready, process, ready_document, status_document)
        ),
    )


def _health_fields(verdict: _Verdict) -> dict[str, Any]:
    return {"healthy": verdict.healthy, "reason": verdict.reason, "message": verdict.message}


def _with_changes(previous: AgentState, state: AgentState, now: datetime) -> AgentState:
    """`revision` and `changed_at` move when something visible other than the times of observation did."""
    if _visible(previous) == _visible(state):
        return state
    return replace(state, changed_at=now, revision=previous.revision + 1)


def _visible(state: AgentState) -> tuple[object, ...]:
    return (*core(state), state.detail)


def core(state: AgentState) -> tuple[object, ...]:
    """What a change of is news; the detail (memory in use, uptime) moves all the time."""
    return (
        state.connection,
        state.readiness,
        state.ready,
        state.process,
        state.healthy,
        state.reason,
        state.message,
        state.confirmed,
    )


# -- readiness ---------------------------------------------------------------------------------------------------------


def _readiness(is_ready: bool, ready: Outcome, process: Process) -> Readiness:
    if is_ready:
        return Readiness.READY
    if isinstance(ready, AgentError):
        return Readiness.UNKNOWN
    return Readiness.STARTING if process in (Process.STARTING, Process.INSTALLING) else Readiness.NOT_READY


def _ready_problem(ready: Outcome, document: dict[str, Any] | None) -> _Verdict | None:
    """What is wrong with `/ready` itself. A plain "not ready" is no problem of the agent's."""
    if isinstance(ready, AgentError):
        return _Verdict(False, f"ready_{_cause(ready)}", f"GET /ready: {ready.message}")
    if ready.status != 200:
        return None  # any other status is a way to say "not ready"
    if document is None:
        return _Verdict(False, "ready_invalid", "GET /ready answered 200 with something that is not a JSON object.")
    if not isinstance(document.get("ready"), bool):
        return _Verdict(False, "ready_invalid", "GET /ready answered without a `ready` that is true or false.")
    return None


# -- process -----------------------------------------------------------------------------------------------------------


def _process(status: Outcome, document: dict[str, Any] | None) -> tuple[Process, _Verdict | None]:
    if isinstance(status, AgentError):
        return Process.UNKNOWN, _Verdict(False, f"status_{_cause(status)}", f"GET /status: {status.message}")
    if status.status != 200:
        return Process.UNKNOWN, _Verdict(False, "status_invalid", f"GET /status answered {status.status}.")
    if document is None:
        message = "GET /status answered 200 with something that is not a JSON object."
        return Process.UNKNOWN, _Verdict(False, "status_invalid", message)
    state = document.get("state")
    process = _PROCESSES.get(state) if isinstance(state, str) else None
    if process is None:
        shown = bounded_text(state, 40) if isinstance(state, str) else type(state).__name__
        message = f"GET /status answered with a state that the contract does not know: {shown}."
        return Process.UNKNOWN, _Verdict(False, "status_invalid", message)
    return process, None


def _judge(is_ready: bool, process: Process, ready: dict[str, Any] | None, status: dict[str, Any] | None) -> _Verdict:
    """Health of a workload whose agent keeps the contract."""
    if process is Process.CRASHED:
        said = _said(status, "error")
        return _Verdict(False, "process_crashed", f"The process crashed{said}.")
    if is_ready:
        return _Verdict(True, "ok", "The workload is ready.")
    if process in _UNDER_WAY:
        return _Verdict(True, process.value, f"The process is {process.value}.")
    if process is Process.STOPPED:
        return _Verdict(True, "stopped", "The process is stopped.")
    return _Verdict(False, "not_ready", f"The process runs, but is not ready{_said(ready, 'reason')}.")


def _said(document: dict[str, Any] | None, key: str) -> str:
    text = (document or {}).get(key)
    return f": {bounded_text(text, 200).rstrip('.')}" if isinstance(text, str) and text.strip() else ""


def _failure(outcome: Outcome, call: str) -> _Verdict | None:
    if isinstance(outcome, AgentError):
        return _Verdict(False, outcome.stable_code, f"{call}: {outcome.message}")
    if not 200 <= outcome.status < 300:
        return _Verdict(False, "agent_refused", f"{call} answered {outcome.status}.")
    return None


def _cause(error: AgentError) -> str:
    return error.stable_code.removeprefix("agent_")


# -- detail ------------------------------------------------------------------------------------------------------------


def _document(outcome: Outcome) -> dict[str, Any] | None:
    return parse_object(outcome.body) if isinstance(outcome, AgentResponse) else None


def _detail(document: dict[str, Any] | None) -> dict[str, Any]:
    """`version`, `uptimeSeconds`, `players` and so on where they have the contract's types, and the rest, bounded."""
    if document is None:
        return {}
    detail: dict[str, Any] = {}
    version = document.get("version")
    if isinstance(version, str):
        detail["version"] = bounded_text(version, 100)
    for name in _NUMBERS:
        number = _number(document.get(name))
        if number is not None:
            detail[name] = number
    for name, parts in _QUANTITIES.items():
        given = document.get(name)
        if isinstance(given, dict):
            detail[name] = {part: _number(given.get(part)) for part in parts}
    if isinstance(document.get("error"), str):
        detail["error"] = bounded_value(document["error"])
    rest = {key: value for key, value in document.items() if key not in _READ_FROM_STATUS}
    return {**bounded_detail(rest), **detail}


def _number(value: object) -> float | None:
    """A finite number that is not negative; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = bounded_number(value)
    return number if number is not None and number >= 0 else None


# -- reading -----------------------------------------------------------------------------------------------------------


def is_stale(state: AgentState, now: datetime, stale_after_seconds: float) -> bool:
    """True unless the latest poll confirmed the state, and recently. What was loaded from storage is stale."""
    if not state.confirmed or state.observed_at is None:
        return True
    return (now - state.observed_at).total_seconds() > stale_after_seconds


def state_json_around_age(
    state: AgentState, *, suspension: Suspension | None, operation: Mapping[str, Any] | None, stale: bool
) -> tuple[bytes, bytes]:
    """The state as JSON, cut where the value of `ageMs` goes: all that changes from one reading to the next.

    `operation` is `{"id","kind","phase"}` or None.
    """
    ahead = {
        "connection": state.connection.value,
        "readiness": state.readiness.value,
        "ready": state.ready and not stale,
        "process": state.process.value,
        "health": {"healthy": state.healthy, "reason": state.reason, "message": state.message},
        "suspension": None if suspension is None else {"reason": suspension.reason, "since": rfc3339(suspension.since)},
        "operation": operation,
        "observedAt": _time(state.observed_at),
    }
    behind = {
        "stale": stale,
        "firstSeenAt": _time(state.first_seen_at),
        "lastSeenAt": _time(state.last_seen_at),
        "lastReadyAt": _time(state.last_ready_at),
        "changedAt": _time(state.changed_at),
        "revision": state.revision,
        "detail": state.detail,
    }
    return orjson.dumps(ahead)[:-1] + b',"ageMs":', b"," + orjson.dumps(behind)[1:]


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
