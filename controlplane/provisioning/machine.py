"""Which phase of an operation may follow which, what to take back and in what order, what to do next. Pure.

    provision   requested → reserved → creating → booting → agentConnected → readyCheck → persisting → publishing
                  → succeeded
                  any of them → compensating → rolledBack | rollbackFailed
                  up to readyCheck → canceling → canceled | rollbackFailed
                  reserved, creating → requested, when the vmid turns out to be somebody else's
    delete      unpublishing → stopping → destroying → deleted
    suspend     unpublishing → suspending → stopping → suspended
    unsuspend   starting → lifting → readyCheck → publishing → unsuspended
                  any of these three → failed, which an administrator retries from the step that failed
    both ends that need somebody → forgotten, when an administrator gives up on them

A phase names what is being done in it: `begun` is stored before its side effect, `done` or `failed` after.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from controlplane.models import FINISHED_PHASES, Operation, OperationError, OperationKind, Phase, StepRecord, StepState

FORWARD: Mapping[OperationKind, tuple[Phase, ...]] = {
    OperationKind.PROVISION: (
        Phase.REQUESTED,
        Phase.RESERVED,
        Phase.CREATING,
        Phase.BOOTING,
        Phase.AGENT_CONNECTED,
        Phase.READY_CHECK,
        Phase.PERSISTING,
        Phase.PUBLISHING,
        Phase.SUCCEEDED,
    ),
    OperationKind.DELETE: (Phase.UNPUBLISHING, Phase.STOPPING, Phase.DESTROYING, Phase.DELETED),
    OperationKind.SUSPEND: (Phase.UNPUBLISHING, Phase.SUSPENDING, Phase.STOPPING, Phase.SUSPENDED),
    OperationKind.UNSUSPEND: (
        Phase.STARTING,
        Phase.LIFTING,
        Phase.READY_CHECK,
        Phase.PUBLISHING,
        Phase.UNSUSPENDED,
    ),
}
"""The way without trouble; the last phase is the good end."""

UNDO_ORDER = (Phase.PUBLISHING, Phase.PERSISTING, Phase.CREATING, Phase.REQUESTED)
"""The steps of a provisioning that leave something behind, the latest first: routes, record, machine, reserved vmid."""

CANCELABLE = frozenset(FORWARD[OperationKind.PROVISION][:6])
"""Until the instance is stored: from then on it is there, and is deleted rather than canceled."""

INTERRUPTIBLE = frozenset({Phase.BOOTING, Phase.AGENT_CONNECTED, Phase.READY_CHECK})
"""Steps that only wait: a cancellation ends them at once. The others are let finish, so that their outcome is known."""

GIVES_THE_VMID_BACK = frozenset({Phase.RESERVED, Phase.CREATING})
VMID_TRIES = 20
"""So many vmids may turn out to be somebody else's machine, one after the other."""

NEEDS_AN_ADMINISTRATOR = frozenset({Phase.ROLLBACK_FAILED, Phase.FAILED})
TAKING_BACK = frozenset({Phase.COMPENSATING, Phase.CANCELING})

FIRST_REST = timedelta(minutes=1)
LONGEST_REST = timedelta(minutes=5)
"""Of an operation that failed, before it is taken up again without an administrator."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a step is tried, how often taking one back, and the pause between, doubled each time. Seconds."""

    attempts: int
    undo_attempts: int
    retry_seconds: float
    longest_retry_seconds: float


@dataclass(frozen=True, slots=True)
class Act:
    """Do the side effect of this phase."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Undo:
    """Take back what this phase did."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Become:
    """Go on to this phase: there is nothing to do."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Finished:
    """There is nothing left to do."""


Decision = Act | Undo | Become | Finished


class IllegalTransition(Exception):
    """A fault of ours: the table does not lead from one phase to the other."""


# -- the table ---------------------------------------------------------------------------------------------------------


def _legal() -> dict[OperationKind, frozenset[tuple[Phase, Phase]]]:
    table: dict[OperationKind, frozenset[tuple[Phase, Phase]]] = {}
    for kind, phases in FORWARD.items():
        pairs = set(itertools.pairwise(phases))
        pairs |= _troubles_of_provisioning() if kind is OperationKind.PROVISION else _troubles(phases)
        table[kind] = frozenset(pairs)
    return table


def _troubles_of_provisioning() -> set[tuple[Phase, Phase]]:
    working = FORWARD[OperationKind.PROVISION][:-1]
    return {
        *((phase, Phase.COMPENSATING) for phase in working),
        *((phase, Phase.CANCELING) for phase in CANCELABLE),
        *((phase, Phase.REQUESTED) for phase in GIVES_THE_VMID_BACK),
        (Phase.COMPENSATING, Phase.ROLLED_BACK),
        (Phase.COMPENSATING, Phase.ROLLBACK_FAILED),
        (Phase.CANCELING, Phase.CANCELED),
        (Phase.CANCELING, Phase.ROLLBACK_FAILED),
        (Phase.ROLLBACK_FAILED, Phase.COMPENSATING),
        (Phase.ROLLBACK_FAILED, Phase.FORGOTTEN),
    }


def _troubles(phases: tuple[Phase, ...]) -> set[tuple[Phase, Phase]]:
    working = phases[:-1]
    return {
        *((phase, Phase.FAILED) for phase in working),
        *((Phase.FAILED, phase) for phase in working),
        (Phase.FAILED, Phase.FORGOTTEN),
    }


LEGAL: Mapping[OperationKind, frozenset[tuple[Phase, Phase]]] = _legal()


def first_phase(kind: OperationKind) -> Phase:
    return FORWARD[kind][0]


def next_phase(kind: OperationKind, phase: Phase) -> Phase:
    """What follows when all goes well."""
    phases = FORWARD[kind]
    return phases[phases.index(phase) + 1]


def may_cancel(operation: Operation) -> bool:
    return operation.kind is OperationKind.PROVISION and operation.phase in CANCELABLE


def moved(operation: Operation, phase: Phase, now: datetime, **changes: Any) -> Operation:
    """In its next phase, due at once. Raises IllegalTransition."""
    if (operation.phase, phase) not in LEGAL[operation.kind]:
        raise IllegalTransition(f"{operation.kind.value}: {operation.phase.value} does not lead to {phase.value}")
    is_over = phase in FINISHED_PHASES and phase not in NEEDS_AN_ADMINISTRATOR
    changes = {"due_at": now, "finished_at": now if is_over else None, **changes}
    return replace(operation, phase=phase, updated_at=now, **changes)


# -- what to do next ---------------------------------------------------------------------------------------------------


def decide(operation: Operation, policy: Policy) -> Decision:
    """What a runner does now with what is stored, whoever stored it and however long ago."""
    if operation.is_finished:
        return Finished()
    if operation.phase in TAKING_BACK:
        return _decide_undo(operation, policy)
    if operation.is_cancel_requested and may_cancel(operation):
        return Become(Phase.CANCELING)
    step = operation.step(operation.phase)
    if step is not None and step.state is StepState.DONE:
        return Become(next_phase(operation.kind, operation.phase))
    if step is not None and (step.state is StepState.FAILED or step.attempts >= _tries(operation.phase, policy)):
        return Become(_way_out(operation))
    return Act(operation.phase)


def _tries(phase: Phase, policy: Policy) -> int:
    return max(policy.attempts, VMID_TRIES) if phase is Phase.REQUESTED else policy.attempts


def _decide_undo(operation: Operation, policy: Policy) -> Decision:
    step = next_undo(operation)
    if step is None:
        return Become(Phase.ROLLED_BACK if operation.phase is Phase.COMPENSATING else Phase.CANCELED)
    is_tried = step.state in (StepState.UNDOING, StepState.UNDO_FAILED)
    if is_tried and step.attempts >= policy.undo_attempts:
        return Become(Phase.ROLLBACK_FAILED)
    return Undo(step.phase)


def next_undo(operation: Operation) -> StepRecord | None:
    """The latest step that was begun and may have left something: also one whose outcome nobody knows."""
    steps = (operation.step(phase) for phase in UNDO_ORDER)
    return next((step for step in steps if step is not None and step.state is not StepState.UNDONE), None)


def _way_out(operation: Operation) -> Phase:
    return Phase.COMPENSATING if operation.kind is OperationKind.PROVISION else Phase.FAILED


# -- a step forward ----------------------------------------------------------------------------------------------------


def begun(operation: Operation, now: datetime) -> Operation:
    """To be stored before the side effect of the present phase."""
    known = operation.step(operation.phase)
    attempts = 1 if known is None else known.attempts + 1
    started_at = now if known is None else known.started_at
    return _with_step(operation, StepRecord(operation.phase, StepState.RUNNING, attempts, started_at), now)


def done(operation: Operation, now: datetime, facts: Mapping[str, Any]) -> Operation:
    """The side effect is there. `facts` are what became known: fields of the operation."""
    step = _present(operation)
    stored = _with_step(operation, replace(step, state=StepState.DONE, ended_at=now, error=None), now)
    return moved(replace(stored, **facts), next_phase(operation.kind, operation.phase), now)


def failed(operation: Operation, error: OperationError, now: datetime, policy: Policy, *, is_final: bool) -> Operation:
    """A try that did not work: again after a pause, or the way out when it was the last one or cannot get better."""
    step = _present(operation)
    if not is_final and step.attempts < _tries(operation.phase, policy):
        waiting = replace(step, state=StepState.WAITING, ended_at=now, error=error)
        return replace(_with_step(operation, waiting, now), due_at=now + pause(step.attempts, policy))
    stored = _with_step(operation, replace(step, state=StepState.FAILED, ended_at=now, error=error), now)
    return moved(stored, _way_out(operation), now, error=error)


def with_another_vmid(operation: Operation, now: datetime) -> Operation:
    """The vmid is somebody else's machine, so nothing was made: another is reserved. Tries of `requested` add up."""
    known = _known(operation, Phase.REQUESTED)
    steps = (replace(known, state=StepState.WAITING),)
    return moved(replace(operation, steps=steps), Phase.REQUESTED, now, vmid=None)


# -- a step back -------------------------------------------------------------------------------------------------------


def undo_begun(operation: Operation, phase: Phase, now: datetime) -> Operation:
    """To be stored before a step is taken back."""
    step = _known(operation, phase)
    is_first = step.state not in (StepState.UNDOING, StepState.UNDO_FAILED)
    attempts = 1 if is_first else step.attempts + 1
    return _with_step(operation, replace(step, state=StepState.UNDOING, attempts=attempts, ended_at=None), now)


def undone(operation: Operation, phase: Phase, now: datetime) -> Operation:
    step = _known(operation, phase)
    return _with_step(operation, replace(step, state=StepState.UNDONE, ended_at=now), now)


def undo_failed(
    operation: Operation, phase: Phase, error: OperationError, now: datetime, policy: Policy, *, left: str
) -> Operation:
    """Again after a pause, or the end that needs an administrator. `left` says what may still be where."""
    step = replace(_known(operation, phase), state=StepState.UNDO_FAILED, ended_at=now, error=error)
    stored = _with_step(operation, step, now)
    if step.attempts < policy.undo_attempts:
        return replace(stored, due_at=now + pause(step.attempts, policy))
    left_behind = tuple(dict.fromkeys((*stored.left_behind, left)))
    return moved(stored, Phase.ROLLBACK_FAILED, now, left_behind=left_behind, error=stored.error or error)


# -- what administrators do --------------------------------------------------------------------------------------------


def retried(operation: Operation, now: datetime) -> Operation:
    """From an end that needs somebody back to work, with every try to come. Raises IllegalTransition elsewhere."""
    if operation.phase is Phase.ROLLBACK_FAILED:
        steps = tuple(
            replace(step, attempts=0) if step.state is StepState.UNDO_FAILED else step for step in operation.steps
        )
        return moved(replace(operation, steps=steps, left_behind=()), Phase.COMPENSATING, now)
    if operation.phase is not Phase.FAILED or operation.error is None:
        raise IllegalTransition(f"{operation.phase.value} cannot be retried")
    phase = operation.error.phase
    steps = tuple(step for step in operation.steps if step.phase is not phase)
    return moved(replace(operation, steps=steps), phase, now, error=None)


def has_rested(operation: Operation, now: datetime) -> bool:
    """Whether one that failed may be taken up again: after as long as it had been tried for, within bounds."""
    tried = operation.updated_at - operation.created_at
    return now >= operation.updated_at + min(max(tried, FIRST_REST), LONGEST_REST)


def pause(attempts: int, policy: Policy) -> timedelta:
    """Before the next try, when there were `attempts`."""
    seconds = policy.retry_seconds * 2 ** min(attempts - 1, 16)
    return timedelta(seconds=min(seconds, policy.longest_retry_seconds))


# -- within ------------------------------------------------------------------------------------------------------------


def _present(operation: Operation) -> StepRecord:
    return _known(operation, operation.phase)


def _known(operation: Operation, phase: Phase) -> StepRecord:
    step = operation.step(phase)
    if step is None:
        raise IllegalTransition(f"{operation.kind.value}: {phase.value} was not begun")
    return step


def _with_step(operation: Operation, step: StepRecord, now: datetime) -> Operation:
    others = [known for known in operation.steps if known.phase is not step.phase]
    position = next((place for place, known in enumerate(operation.steps) if known.phase is step.phase), len(others))
    others.insert(position, step)
    return replace(operation, steps=tuple(others), updated_at=now)
