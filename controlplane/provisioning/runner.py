"""Runs operations: one runner each, under a lease, every step stored before its side effect.

What is due is claimed by `run_once`, which a job calls, or by `kick` at once: also what another process left behind,
when its lease has ended. What to do is decided by `machine`, how it is done is in `effects`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from prometheus_client import Counter

from controlplane.errors import (
    AgentError,
    ControlPlaneError,
    ProviderError,
    ProviderUnavailable,
    StaleRevision,
    StorageUnavailable,
    Unavailable,
    VmidTaken,
)
from controlplane.models import Operation, OperationError, Phase
from controlplane.ports import Clock, OperationRepository
from controlplane.provisioning import machine
from controlplane.provisioning.agent_watch import TookTooLong
from controlplane.provisioning.board import OperationBoard
from controlplane.provisioning.effects import Effects, Facts

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3


class LeaseLost(Exception):
    """Another runner may have taken over: nothing more is done here."""


class CancelRequested(Exception):
    """The effect was ended because its operation is to be canceled."""


class OperationRunner:
    """`name` tells this process's runner from any other; `provider` is the name of what it makes machines with.

    No effect may take longer than `step_seconds`: it is cut, its outcome unknown. `ended` counts by kind and state.
    """

    def __init__(
        self,
        operations: OperationRepository,
        effects: Effects,
        board: OperationBoard,
        clock: Clock,
        *,
        name: str,
        provider: str | None,
        policy: machine.Policy,
        lease_seconds: float,
        step_seconds: float,
        concurrency: int,
        ended: Counter,
    ) -> None:
        self._operations = operations
        self._effects = effects
        self._board = board
        self._clock = clock
        self._name = name
        self._provider = provider
        self._policy = policy
        self._lease_seconds = lease_seconds
        self._step_seconds = step_seconds
        self._concurrency = concurrency
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancels: dict[str, asyncio.Event] = {}
        self._is_stopping = False

    # -- from outside ------------------------------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Take up what is due, as far as there is room."""
        room = self._concurrency - len(self._tasks)
        if room <= 0 or self._is_stopping:
            return
        for operation_id in await self._operations.list_due(self._clock.now(), provider=self._provider, limit=room):
            self.kick(operation_id)

    def kick(self, operation_id: str) -> None:
        """Take this one up now; where there is no room, the job does so later."""
        if self._is_stopping or operation_id in self._tasks or len(self._tasks) >= self._concurrency:
            return
        task = asyncio.create_task(self._run(operation_id), name=f"operation:{operation_id}")
        self._tasks[operation_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation_id, None))

    def tell_canceled(self, operation_id: str) -> None:
        """The cancellation is stored: look now, rather than when the lease is renewed."""
        event = self._cancels.get(operation_id)
        if event is not None:
            event.set()
        self.kick(operation_id)

    async def stop(self, *, limit_seconds: float) -> None:
        """Let the effects under way end, then cut them; their outcome is looked at by the next runner."""
        self._is_stopping = True
        under_way = set(self._tasks.values())
        if not under_way:
            return
        _, late = await asyncio.wait(under_way, timeout=limit_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def until_idle(self) -> None:
        """No operation is run here any more."""
        while self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    # -- one operation -----------------------------------------------------------------------------------------------

    async def _run(self, operation_id: str) -> None:
        try:
            operation = await self._operations.claim(operation_id, self._name, lease_seconds=self._lease_seconds)
            if operation is not None:
                await self._drive(operation)
        except StorageUnavailable as error:
            logger.warning(
                "an operation waits for the database", extra={"operation": operation_id, "why": error.message}
            )
        except LeaseLost:
            logger.warning("an operation passed on to another runner", extra={"operation": operation_id})
        except Exception:
            logger.exception("an operation cannot be run", extra={"operation": operation_id})

    async def _drive(self, operation: Operation) -> None:
        self._cancels[operation.id] = asyncio.Event()
        try:
            while not self._is_stopping:
                decision = machine.decide(operation, self._policy)
                is_early = operation.due_at > self._clock.now() and not isinstance(decision, machine.Become)
                if isinstance(decision, machine.Finished) or is_early:
                    break
                operation = await self._follow(operation, decision)
        finally:
            del self._cancels[operation.id]
            with contextlib.suppress(ControlPlaneError):  # else the lease ends by itself
                await self._operations.release(operation)

    async def _follow(self, operation: Operation, decision: machine.Decision) -> Operation:
        """One decision, carried out and stored. What others wrote meanwhile leads to a new decision."""
        try:
            if isinstance(decision, machine.Act):
                return await self._act(operation)
            if isinstance(decision, machine.Undo):
                return await self._undo(operation, decision.phase)
            assert isinstance(decision, machine.Become)
            return await self._save(self._moved(operation, decision.phase))
        except (StaleRevision, CancelRequested):
            return await self._reload(operation)

    def _moved(self, operation: Operation, phase: Phase) -> Operation:
        changes: dict[str, Any] = {}
        if phase in (Phase.COMPENSATING, Phase.FAILED) and operation.error is None:
            changes["error"] = OperationError(
                operation.phase,
                "interrupted",
                "This did not work.",
                "it was tried as often as allowed, and the process ended each time before the outcome was stored",
            )
        undo = machine.next_undo(operation)
        if phase is Phase.ROLLBACK_FAILED and undo is not None:
            left = self._effects.left_by(operation, undo.phase)
            changes["left_behind"] = tuple(dict.fromkeys((*operation.left_behind, left)))
        return machine.moved(operation, phase, self._clock.now(), **changes)

    async def _act(self, operation: Operation) -> Operation:
        begun = await self._save(machine.begun(operation, self._clock.now()))
        try:
            facts = await self._guarded(begun, self._effects.do(begun))
        except VmidTaken as error:
            return await self._take_another_vmid(begun, error)
        except (StorageUnavailable, LeaseLost, CancelRequested):
            raise
        except Exception as error:
            told, is_final = trouble(begun.phase, error)
            _log_trouble(begun, told, error)
            return await self._store(
                begun,
                lambda now_stored: machine.failed(now_stored, told, self._clock.now(), self._policy, is_final=is_final),
            )
        return await self._store(begun, lambda now_stored: machine.done(now_stored, self._clock.now(), facts))

    async def _take_another_vmid(self, begun: Operation, error: VmidTaken) -> Operation:
        if begun.phase not in machine.GIVES_THE_VMID_BACK:
            told, _ = trouble(begun.phase, error)
            _log_trouble(begun, told, error)
            return await self._store(
                begun,
                lambda now_stored: machine.failed(now_stored, told, self._clock.now(), self._policy, is_final=True),
            )
        logger.warning("a vmid is taken by a machine of somebody else", extra={"why": error.operator_message})
        stored = await self._store(begun, lambda now_stored: machine.with_another_vmid(now_stored, self._clock.now()))
        await self._effects.release_vmid(stored)
        return stored

    async def _undo(self, operation: Operation, phase: Phase) -> Operation:
        begun = await self._save(machine.undo_begun(operation, phase, self._clock.now()))
        try:
            await self._guarded(begun, self._undoing(begun, phase))
        except (StorageUnavailable, LeaseLost):
            raise
        except Exception as error:
            told, _ = trouble(phase, error)
            _log_trouble(begun, told, error)
            left = self._effects.left_by(begun, phase)
            return await self._store(
                begun,
                lambda now_stored: machine.undo_failed(
                    now_stored, phase, told, self._clock.now(), self._policy, left=left
                ),
            )
        return await self._store(begun, lambda now_stored: machine.undone(now_stored, phase, self._clock.now()))

    async def _undoing(self, operation: Operation, phase: Phase) -> Facts:
        await self._effects.undo(operation, phase)
        return {}

    # -- under the lease ---------------------------------------------------------------------------------------------

    async def _guarded(self, operation: Operation, effect: Coroutine[Any, Any, Facts]) -> Facts:
        """The effect, while the lease is renewed beside it. Raises LeaseLost, CancelRequested or TimeoutError, the
        effect cut."""
        task = asyncio.ensure_future(effect)
        canceled = asyncio.ensure_future(self._cancels[operation.id].wait())
        held_until = self._clock.monotonic() + self._lease_seconds
        ends = self._clock.monotonic() + self._step_seconds
        try:
            while True:
                await asyncio.wait(
                    {task} if canceled.done() else {task, canceled},
                    timeout=self._lease_seconds / RENEWALS_PER_LEASE,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if task.done():
                    return task.result()
                if self._clock.monotonic() >= ends:
                    raise TimeoutError
                held_until = await self._renewed(operation, held_until)
        finally:
            canceled.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _renewed(self, operation: Operation, held_until: float) -> float:
        """How long the lease holds now. While the database is away it holds as long as it was said to, no longer."""
        asked_at = self._clock.monotonic()
        try:
            stored = await self._operations.renew(operation)
        except StorageUnavailable:
            if self._clock.monotonic() >= held_until - self._lease_seconds / RENEWALS_PER_LEASE:
                raise LeaseLost from None
            return held_until
        if stored is None:
            raise LeaseLost
        if stored.is_cancel_requested and operation.phase in machine.INTERRUPTIBLE and machine.may_cancel(stored):
            raise CancelRequested
        return asked_at + self._lease_seconds

    async def _save(self, operation: Operation) -> Operation:
        stored = await self._operations.save(operation)
        self._board.take_in(stored)
        if stored.is_finished:
            self._ended.labels(stored.kind.value, stored.phase.value).inc()
        return stored

    async def _store(self, operation: Operation, change: Callable[[Operation], Operation]) -> Operation:
        """What came out is stored, whatever was requested meanwhile."""
        while True:
            try:
                return await self._save(change(operation))
            except StaleRevision:
                operation = await self._reload(operation)

    async def _reload(self, operation: Operation) -> Operation:
        stored = await self._operations.renew(operation)
        if stored is None:
            raise LeaseLost
        return stored


def trouble(phase: Phase, error: Exception) -> tuple[OperationError, bool]:
    """What to say of an effect that failed, and whether trying it again is of no use."""
    if isinstance(error, ProviderError):
        return (
            OperationError(phase, error.stable_code, error.message, error.operator_message),
            not isinstance(error, ProviderUnavailable),
        )
    if isinstance(error, TookTooLong):
        return OperationError(phase, error.stable_code, error.message, error.operator_message), True
    if isinstance(error, TimeoutError):
        message = "It took too long."
        return OperationError(phase, "step_timeout", message, f"{phase.value} did not end in time: it was cut"), False
    if isinstance(error, AgentError):
        message = "The instance's agent did not do as asked."
        return OperationError(phase, error.stable_code, message, error.message), False
    if isinstance(error, ControlPlaneError):
        message = "This did not work."
        return OperationError(phase, error.stable_code, message, error.message), not isinstance(error, Unavailable)
    return OperationError(phase, "internal_error", "Something went wrong here.", repr(error)), False


def _log_trouble(operation: Operation, told: OperationError, error: Exception) -> None:
    logger.warning(
        "a step of an operation failed",
        extra={
            "operation": operation.id,
            "instance": operation.instance_id,
            "phase": operation.phase.value,
            "step": told.phase.value,
            "code": told.code,
            "why": told.operator_message,
        },
        exc_info=error if told.code == "internal_error" else None,
    )
