"""How operations read as JSON: for customers what happens to their instance, for administrators also what to act on."""

from __future__ import annotations

from typing import Any

from controlplane.clock import rfc3339
from controlplane.models import Operation, OperationError, Phase, StepRecord, StepState
from controlplane.provisioning.machine import FORWARD, may_cancel

_SHOWN_STATES = {
    StepState.RUNNING: "running",
    StepState.WAITING: "running",
    StepState.DONE: "done",
    StepState.FAILED: "failed",
    StepState.UNDOING: "undoing",
    StepState.UNDONE: "undone",
    StepState.UNDO_FAILED: "undoing",
}


def operation_document(operation: Operation) -> dict[str, Any]:
    """As its owner reads it. `progress` is in percent of the steps."""
    phases = FORWARD[operation.kind][:-1]
    records = [operation.step(phase) for phase in phases]
    done = sum(record is not None and record.state is StepState.DONE for record in records)
    return {
        "id": operation.id,
        "kind": operation.kind.value,
        "state": operation.phase.value,
        "finished": operation.is_finished,
        "progress": 100 * done // len(phases),
        "steps": [_step(phase, record) for phase, record in zip(phases, records, strict=True)],
        "instanceId": operation.instance_id,
        "instanceKind": operation.instance_kind.value,
        "name": operation.name,
        "cancelable": may_cancel(operation) and not operation.is_cancel_requested,
        "error": None if operation.error is None else _error(operation.error),
        "createdAt": rfc3339(operation.created_at),
        "updatedAt": rfc3339(operation.updated_at),
    }


def admin_operation_document(operation: Operation) -> dict[str, Any]:
    """As an administrator reads it: with what the provider said, and what may be left where."""
    document = operation_document(operation)
    for step in document["steps"]:
        record = operation.step(Phase(step["name"]))
        step["error"] = None if record is None or record.error is None else _operator_error(record.error)
    return {
        **document,
        "error": None if operation.error is None else _operator_error(operation.error),
        "ownerId": operation.owner_id,
        "requestedBy": operation.requested_by,
        "plan": operation.plan,
        "provider": operation.provider,
        "vmid": operation.vmid,
        "mark": operation.mark,
        "reason": operation.reason,
        "leftBehind": list(operation.left_behind),
        "dueAt": rfc3339(operation.due_at),
        "runner": operation.runner,
        "fence": operation.fence,
    }


def state_operation(operation: Operation | None) -> dict[str, str] | None:
    """What the normalized state of an instance says of the operation that it is in."""
    if operation is None:
        return None
    return {"id": operation.id, "kind": operation.kind.value, "phase": operation.phase.value}


def _step(phase: Phase, record: StepRecord | None) -> dict[str, Any]:
    return {
        "name": phase.value,
        "state": "pending" if record is None else _SHOWN_STATES[record.state],
        "attempts": 0 if record is None else record.attempts,
        "startedAt": None if record is None else rfc3339(record.started_at),
        "endedAt": None if record is None or record.ended_at is None else rfc3339(record.ended_at),
    }


def _error(error: OperationError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "step": error.phase.value}


def _operator_error(error: OperationError) -> dict[str, Any]:
    return {**_error(error), "operatorMessage": error.operator_message}
