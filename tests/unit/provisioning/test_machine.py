"""The transitions of operations: the whole table, and every way through it with every kind of luck."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.models import (
    FINISHED_PHASES,
    InstanceKind,
    Operation,
    OperationError,
    OperationKind,
    Phase,
    StepRecord,
    StepState,
)
from controlplane.provisioning import machine
from controlplane.provisioning.machine import Act, Become, Decision, Finished, IllegalTransition, Policy, Undo

NOW = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = Policy(attempts=2, undo_attempts=2, retry_seconds=2, longest_retry_seconds=60)

TABLE = {
    OperationKind.PROVISION: {
        "requested": "reserved compensating canceling",
        "reserved": "creating requested compensating canceling",
        "creating": "booting requested compensating canceling",
        "booting": "agentConnected compensating canceling",
        "agentConnected": "readyCheck compensating canceling",
        "readyCheck": "persisting compensating canceling",
        "persisting": "publishing compensating",
        "publishing": "succeeded compensating",
        "compensating": "rolledBack rollbackFailed",
        "canceling": "canceled rollbackFailed",
        "rollbackFailed": "compensating forgotten",
    },
    OperationKind.DELETE: {
        "unpublishing": "stopping failed",
        "stopping": "destroying failed",
        "destroying": "deleted failed",
        "failed": "unpublishing stopping destroying forgotten",
    },
    OperationKind.SUSPEND: {
        "unpublishing": "suspending failed",
        "suspending": "stopping failed",
        "stopping": "suspended failed",
        "failed": "unpublishing suspending stopping forgotten",
    },
    OperationKind.UNSUSPEND: {
        "starting": "lifting failed",
        "lifting": "readyCheck failed",
        "readyCheck": "publishing failed",
        "publishing": "unsuspended failed",
        "failed": "starting lifting readyCheck publishing forgotten",
    },
}


def operation(kind: OperationKind = OperationKind.PROVISION, **changes: Any) -> Operation:
    plain = Operation(
        id="op_1",
        kind=kind,
        phase=machine.first_phase(kind),
        instance_id="gs_1",
        instance_kind=InstanceKind.GAME,
        owner_id="usr_1",
        requested_by="usr_1",
        name="Oakvale",
        created_at=NOW,
        updated_at=NOW,
        due_at=NOW,
    )
    return replace(plain, **changes)


def error(phase: Phase) -> OperationError:
    return OperationError(phase, "bad", "It failed.", "it failed there")


@pytest.mark.parametrize("kind", list(OperationKind))
def test_the_table_of_transitions_is_this_one(kind: OperationKind) -> None:
    for before, after in itertools.product(Phase, Phase):
        if after.value in TABLE[kind].get(before.value, "").split():
            assert machine.moved(operation(kind, phase=before), after, NOW).phase is after
            continue
        with pytest.raises(IllegalTransition):
            machine.moved(operation(kind, phase=before), after, NOW)


def test_the_phases_without_a_way_on_are_the_finished_ones_that_nobody_has_to_look_at() -> None:
    for kind, table in TABLE.items():
        reached = {phase for phases in table.values() for phase in phases.split()}
        dead_ends = {Phase(phase) for phase in reached if phase not in table}
        assert dead_ends == {phase for phase in FINISHED_PHASES if phase.value in reached and phase.value not in table}
        assert dead_ends == {Phase(each) for each in reached} & (FINISHED_PHASES - machine.NEEDS_AN_ADMINISTRATOR), kind


# -- every way ---------------------------------------------------------------------------------------------------------


def outcomes(now_stored: Operation, decision: Decision) -> Iterator[Operation]:
    """Everything that may be stored after a decision: it worked, it did not, the process died, somebody canceled."""
    if isinstance(decision, Become):
        yield machine.moved(now_stored, decision.phase, NOW)
    elif isinstance(decision, Act):
        begun = machine.begun(now_stored, NOW)
        yield begun  # and then nothing: a crash
        yield machine.done(begun, NOW, {})
        for is_final in (False, True):
            yield machine.failed(begun, error(begun.phase), NOW, POLICY, is_final=is_final)
        if begun.phase in machine.GIVES_THE_VMID_BACK and _tries_of(begun, Phase.REQUESTED) < 4:
            yield machine.with_another_vmid(begun, NOW)
    elif isinstance(decision, Undo):
        begun = machine.undo_begun(now_stored, decision.phase, NOW)
        yield begun
        yield machine.undone(begun, decision.phase, NOW)
        yield machine.undo_failed(begun, decision.phase, error(decision.phase), NOW, POLICY, left="something")
    if machine.may_cancel(now_stored) and not now_stored.is_cancel_requested:
        yield replace(now_stored, is_cancel_requested=True)


def _tries_of(each: Operation, phase: Phase) -> int:
    step = each.step(phase)
    return 0 if step is None else step.attempts


def reachable(kind: OperationKind) -> dict[Operation, list[Operation]]:
    """Every state that may ever be stored, with what may follow it."""
    first = operation(kind)
    found: dict[Operation, list[Operation]] = {}
    waiting = [first]
    while waiting:
        each = waiting.pop()
        if each in found:
            continue
        found[each] = [_plain(after) for after in outcomes(each, machine.decide(each, POLICY))]
        waiting.extend(found[each])
    return found


def _plain(each: Operation) -> Operation:
    """Without what only counts time and tries of `requested`, so that the number of states stays small."""
    steps = tuple(
        replace(step, error=None, attempts=min(step.attempts, 4 if step.phase is Phase.REQUESTED else 9))
        for step in each.steps
    )
    return replace(each, steps=steps, due_at=NOW, error=None, left_behind=())


@pytest.fixture(scope="module", params=list(OperationKind), ids=lambda kind: kind.value)
def states(request: pytest.FixtureRequest) -> dict[Operation, list[Operation]]:
    return reachable(request.param)


def test_every_operation_can_end_from_wherever_it_was_left(states: dict[Operation, list[Operation]]) -> None:
    ended = {each for each in states if each.is_finished}
    while True:
        more = {each for each, following in states.items() if each not in ended and ended.intersection(following)}
        if not more:
            break
        ended |= more
    assert ended == set(states)


def test_an_operation_whose_process_always_dies_ends_too(states: dict[Operation, list[Operation]]) -> None:
    for each in list(states)[:500]:
        current, steps = each, 0
        while not current.is_finished:
            decision = machine.decide(current, POLICY)
            current = _after_a_crash(current, decision)
            steps += 1
            assert steps < 200, each


def _after_a_crash(current: Operation, decision: Decision) -> Operation:
    if isinstance(decision, Act):
        return machine.begun(current, NOW)
    if isinstance(decision, Undo):
        return machine.undo_begun(current, decision.phase, NOW)
    assert isinstance(decision, Become)
    return machine.moved(current, decision.phase, NOW)


def test_nothing_is_stored_or_published_that_was_not_found_ready(states: dict[Operation, list[Operation]]) -> None:
    for each in states:
        for later, earlier in ((Phase.PERSISTING, Phase.READY_CHECK), (Phase.PUBLISHING, Phase.READY_CHECK)):
            if each.step(later) is None or each.kind not in (OperationKind.PROVISION, OperationKind.UNSUSPEND):
                continue
            ready = each.step(earlier)
            assert ready is not None
            assert ready.state is StepState.DONE


def test_the_good_end_has_every_step_done(states: dict[Operation, list[Operation]]) -> None:
    ends = [each for each in states if each.phase is machine.FORWARD[each.kind][-1]]
    assert ends
    for each in ends:
        phases = machine.FORWARD[each.kind][:-1]
        assert [step.phase for step in sorted(each.steps, key=lambda step: phases.index(step.phase))] == list(phases)
        assert {step.state for step in each.steps} == {StepState.DONE}


def test_what_was_rolled_back_or_canceled_left_nothing(states: dict[Operation, list[Operation]]) -> None:
    for each in states:
        if each.phase in (Phase.ROLLED_BACK, Phase.CANCELED):
            left = [step for step in each.steps if step.phase in machine.UNDO_ORDER]
            assert {step.state for step in left} <= {StepState.UNDONE}


def test_steps_are_taken_back_latest_first(states: dict[Operation, list[Operation]]) -> None:
    for each in states:
        taken_back = [
            machine.UNDO_ORDER.index(step.phase)
            for step in each.steps
            if step.state in (StepState.UNDONE, StepState.UNDOING, StepState.UNDO_FAILED)
        ]
        kept = [
            machine.UNDO_ORDER.index(step.phase)
            for step in each.steps
            if step.phase in machine.UNDO_ORDER
            and step.state not in (StepState.UNDONE, StepState.UNDOING, StepState.UNDO_FAILED)
        ]
        assert not taken_back or not kept or max(taken_back) < min(kept)


def test_a_canceled_operation_is_neither_stored_nor_published_afterwards(
    states: dict[Operation, list[Operation]],
) -> None:
    for each, following in states.items():
        if not each.is_cancel_requested:
            continue
        for after in following:
            if each.step(Phase.PERSISTING) is None:
                assert after.phase not in (Phase.PERSISTING, Phase.PUBLISHING) or each.phase is Phase.READY_CHECK
                assert after.step(Phase.PERSISTING) is None


# -- the pieces --------------------------------------------------------------------------------------------------------


def test_a_step_that_failed_is_tried_again_after_a_pause_that_doubles_up_to_a_limit() -> None:
    policy = Policy(attempts=10, undo_attempts=10, retry_seconds=2, longest_retry_seconds=10)
    pauses = [machine.pause(attempts, policy).total_seconds() for attempts in (1, 2, 3, 4, 90)]
    assert pauses == [2, 4, 8, 10, 10]
    begun = machine.begun(operation(), NOW)
    waiting = machine.failed(begun, error(Phase.REQUESTED), NOW, policy, is_final=False)
    assert (waiting.phase, waiting.due_at) == (Phase.REQUESTED, NOW + timedelta(seconds=2))
    assert machine.decide(waiting, policy) == Act(Phase.REQUESTED)
    assert machine.begun(waiting, NOW).steps[0].attempts == 2


def test_what_cannot_get_better_leads_to_the_way_out_at_once_and_keeps_what_was_said() -> None:
    begun = machine.begun(operation(), NOW)
    failed = machine.failed(begun, error(Phase.REQUESTED), NOW, POLICY, is_final=True)
    assert (failed.phase, failed.error) == (Phase.COMPENSATING, error(Phase.REQUESTED))
    deletion = machine.begun(operation(OperationKind.DELETE), NOW)
    failed = machine.failed(deletion, error(Phase.UNPUBLISHING), NOW, POLICY, is_final=True)
    assert (failed.phase, failed.finished_at) == (Phase.FAILED, None)


def test_facts_are_stored_with_the_step_that_found_them() -> None:
    reserved = machine.done(machine.begun(operation(), NOW), NOW, {"vmid": 10_001})
    assert (reserved.phase, reserved.vmid, reserved.steps[0].state) == (Phase.RESERVED, 10_001, StepState.DONE)


def test_another_vmid_begins_anew_without_what_was_made_for_the_first() -> None:
    reserved = machine.done(machine.begun(operation(), NOW), NOW, {"vmid": 10_001})
    creating = machine.begun(machine.done(machine.begun(reserved, NOW), NOW, {}), NOW)
    again = machine.with_another_vmid(creating, NOW)
    assert (again.phase, again.vmid) == (Phase.REQUESTED, None)
    assert [step.phase for step in again.steps] == [Phase.REQUESTED]
    assert machine.decide(again, POLICY) == Act(Phase.REQUESTED)


def test_an_undo_that_fails_for_good_says_what_is_left_and_is_retried_with_every_try_to_come() -> None:
    steps = (
        StepRecord(Phase.REQUESTED, StepState.DONE, 1, NOW),
        StepRecord(Phase.CREATING, StepState.UNDOING, 2, NOW),
    )
    undoing = operation(phase=Phase.COMPENSATING, steps=steps)
    failed = machine.undo_failed(undoing, Phase.CREATING, error(Phase.CREATING), NOW, POLICY, left="machine 7")
    assert (failed.phase, failed.left_behind, failed.finished_at) == (Phase.ROLLBACK_FAILED, ("machine 7",), None)
    assert machine.decide(failed, POLICY) == Finished()
    again = machine.retried(failed, NOW)
    assert (again.phase, again.left_behind) == (Phase.COMPENSATING, ())
    assert machine.decide(again, POLICY) == Undo(Phase.CREATING)
    assert machine.undo_begun(again, Phase.CREATING, NOW).step(Phase.CREATING).attempts == 1  # type: ignore[union-attr]


def test_a_failed_deletion_is_retried_from_the_step_that_failed() -> None:
    stopping = machine.begun(operation(OperationKind.DELETE, phase=Phase.STOPPING), NOW)
    failed = machine.failed(stopping, error(Phase.STOPPING), NOW, POLICY, is_final=True)
    again = machine.retried(failed, NOW)
    assert (again.phase, again.error) == (Phase.STOPPING, None)
    assert machine.decide(again, POLICY) == Act(Phase.STOPPING)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in machine.NEEDS_AN_ADMINISTRATOR])
def test_nothing_else_is_retried(phase: Phase) -> None:
    with pytest.raises(IllegalTransition):
        machine.retried(operation(phase=phase), NOW)


@pytest.mark.parametrize(("tried", "rests"), [(0, 60), (30, 60), (150, 150), (299, 299), (86_400, 300)])
def test_what_failed_rests_for_as_long_as_it_was_tried_within_bounds(tried: int, rests: int) -> None:
    failed = replace(operation(OperationKind.UNSUSPEND, phase=Phase.FAILED), updated_at=NOW + timedelta(seconds=tried))
    again = failed.updated_at + timedelta(seconds=rests)
    assert machine.has_rested(failed, again)
    assert not machine.has_rested(failed, again - timedelta(seconds=1))


def test_only_a_provisioning_that_is_not_stored_yet_can_be_canceled() -> None:
    cancelable = {phase for phase in Phase if machine.may_cancel(operation(phase=phase))}
    assert cancelable == {
        Phase.REQUESTED,
        Phase.RESERVED,
        Phase.CREATING,
        Phase.BOOTING,
        Phase.AGENT_CONNECTED,
        Phase.READY_CHECK,
    }
    assert not machine.may_cancel(operation(OperationKind.UNSUSPEND, phase=Phase.READY_CHECK))
