"""What is asked for: operations are made here, listed, canceled, retried, given up. Running them is the runner's part.

An operation under a key is unique in the database, so that a request that is sent again, to whichever process and
however long after a crash, finds the operation that the first one made.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from controlplane.errors import Conflict, NotFound, Overloaded, StaleRevision, TooManyRequests
from controlplane.instances import ID_PREFIXES, InstanceDirectory
from controlplane.models import Holding, Instance, InstanceKind, Operation, OperationKind, Phase, Principal
from controlplane.ports import Clock, Entitlements, LeaseRepository, OperationRepository
from controlplane.provisioning import machine
from controlplane.provisioning.board import OperationBoard
from controlplane.provisioning.effects import Effects
from controlplane.provisioning.entitlements import check_covers, check_will_cover
from controlplane.provisioning.plans import size_of
from controlplane.provisioning.runner import OperationRunner
from controlplane.turns import Turns

QUOTA_AT_MOST = 50
QUOTA_WAIT_SECONDS = 10.0
_AMEND_ATTEMPTS = 5
RETRY_SECONDS = 30


class ProvisioningService:
    """`provider` is the name of what makes machines here, or None; `under_way_per_user` bounds unfinished operations,
    `owner` names this process among all that share the database.

    Satisfies `ports.InstanceEffects`.
    """

    def __init__(
        self,
        *,
        operations: OperationRepository,
        leases: LeaseRepository,
        directory: InstanceDirectory,
        entitlements: Entitlements,
        board: OperationBoard,
        runner: OperationRunner,
        effects: Effects,
        clock: Clock,
        owner: str,
        provider: str | None,
        under_way_per_user: int,
        random_token: Callable[[], str] = lambda: secrets.token_urlsafe(32),
        random_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._operations = operations
        self._directory = directory
        self._entitlements = entitlements
        self._board = board
        self._runner = runner
        self._effects = effects
        self._clock = clock
        self._provider = provider
        self._under_way_per_user = under_way_per_user
        self._random_token = random_token
        self._random_id = random_id
        self._deployment = ""
        self._turns = Turns(
            leases, owner, "quota", at_most=QUOTA_AT_MOST, wait_seconds=QUOTA_WAIT_SECONDS, busy=_too_many
        )

    async def load(self) -> None:
        """Before anything is asked for. Raises StorageUnavailable."""
        self._deployment = await self._operations.deployment_id()
        await self._board.load()

    # -- asking ------------------------------------------------------------------------------------------------------

    async def provision(
        self, principal: Principal, kind: InstanceKind, *, name: str, plan: str, key: str | None = None
    ) -> Operation:
        """An instance for the caller. The same key and request give the same operation.

        Raises Conflict (`provisioning_disabled`, `idempotency_key_reused`, `quota_reached`, `exceeds_coming_plan`),
        Forbidden (`not_entitled`, `plan_not_entitled`), TooManyRequests, Overloaded.
        """
        if self._provider is None:
            raise Conflict("No instances are made here: no provider is configured.", code="provisioning_disabled")
        scoped_key = None if key is None else _scoped(principal.user_id, key)
        request_hash = _hash_of("provision", kind.value, name, plan)
        async with self._turns.of(principal.user_id):  # what was counted stays true until it is stored
            known = await self._known(scoped_key, request_hash)
            if known is not None:
                return known
            await self._check_room(principal, kind, plan)
            instance_id = ID_PREFIXES[kind] + self._random_id()
            operation = self._new(
                OperationKind.PROVISION,
                instance_id=instance_id,
                instance_kind=kind,
                owner_id=principal.user_id,
                requested_by=principal.user_id,
                name=name,
                plan=plan,
                provider=self._provider,
                sealed_token=self._directory.seal_token(instance_id, self._random_token()),
                key=scoped_key,
                request_hash=request_hash,
            )
            return await self._add(operation)

    async def request(
        self, kind: OperationKind, instance: Instance, actor_id: str, *, reason: str | None = None
    ) -> Operation:
        """Delete, suspend or unsuspend. What is under way already is answered with itself.

        Raises Conflict: `not_provisioned_here` for deleting what an administrator registered, `provider_not_configured`
        when another provider made its machine, `operation_in_progress` while something else is done to it.
        """
        return await self._on_instance(kind, instance, actor_id, reason, None, _hash_of(kind.value, instance.id))

    async def suspend(self, instance_id: str, reason: str, *, key: str) -> str:
        return await self._effect(OperationKind.SUSPEND, instance_id, reason, key)

    async def unsuspend(self, instance_id: str, *, key: str) -> str:
        return await self._effect(OperationKind.UNSUSPEND, instance_id, None, key)

    async def unsuspend_again(self, instance_id: str, *, key: str) -> str | None:
        known = await self._known(_scoped("", key), _hash_of(OperationKind.UNSUSPEND.value, instance_id))
        if known is not None and (known.phase is not Phase.FAILED or not machine.has_rested(known, self._clock.now())):
            return None
        try:
            if known is None:
                return await self.unsuspend(instance_id, key=key)
            return (await self.retry(known.id)).id
        except Conflict as error:
            if error.stable_code in ("operation_in_progress", "not_retryable"):
                return None  # something else is done to it, or another process was first
            raise

    async def delete(self, instance_id: str, reason: str, *, key: str) -> str:
        return await self._effect(OperationKind.DELETE, instance_id, reason, key)

    @asynccontextmanager
    async def holdings(self, owner_id: str) -> AsyncIterator[Sequence[Holding]]:
        async with self._turns.of(owner_id):
            # Operations first, as in `_check_room`.
            unfinished = await self._operations.list_unfinished_of(owner_id)
            await self._directory.sync()
            found = {
                each.instance_id: Holding(each.instance_kind, each.name, size_of(each).memory_mib)
                for each in unfinished
                if each.kind is OperationKind.PROVISION
            }
            found |= {each.id: each.holding for each in self._directory.of_owner(owner_id)}
            yield list(found.values())

    async def _effect(self, kind: OperationKind, instance_id: str, reason: str | None, key: str) -> str:
        """Raises NotFound for an instance that is gone, unless this key's operation is known; Conflict as `request`."""
        scoped_key, request_hash = _scoped("", key), _hash_of(kind.value, instance_id)
        known = await self._known(scoped_key, request_hash)
        if known is not None:
            return known.id
        instance = await self._directory.fetch(instance_id)
        if instance is None:
            raise NotFound
        return (await self._on_instance(kind, instance, "", reason, scoped_key, request_hash)).id

    async def _on_instance(
        self,
        kind: OperationKind,
        instance: Instance,
        actor_id: str,
        reason: str | None,
        key: str | None,
        request_hash: str,
    ) -> Operation:
        if kind is OperationKind.DELETE and instance.provider is None:
            raise Conflict(
                "This instance was registered by hand: an administrator removes it.", code="not_provisioned_here"
            )
        if instance.provider not in (None, self._provider):
            raise Conflict(
                "This cannot be done at the moment.",
                code="provider_not_configured",
                details={"provider": instance.provider},
            )
        operation = self._new(
            kind,
            instance_id=instance.id,
            instance_kind=instance.kind,
            owner_id=instance.owner_id,
            requested_by=actor_id,
            name=instance.name,
            provider=instance.provider,
            mark=instance.operation_id,
            vmid=instance.vmid,
            reason=reason,
            key=key,
            request_hash=request_hash,
        )
        try:
            return await self._add(operation)
        except Conflict as error:
            active = await self._operations.find_active(instance.id)
            if error.stable_code == "operation_in_progress" and active is not None and active.kind is kind:
                return active
            raise

    def _new(self, kind: OperationKind, **fields: Any) -> Operation:
        now = self._clock.now()
        operation_id = f"op_{self._deployment}_{int(now.timestamp() * 1000):011x}{self._random_id()[:8]}"
        return Operation(
            id=operation_id,
            kind=kind,
            phase=machine.first_phase(kind),
            created_at=now,
            updated_at=now,
            due_at=now,
            **{"mark": operation_id, **fields},
        )

    async def _add(self, operation: Operation) -> Operation:
        try:
            await self._operations.add(operation)
        except Conflict as error:
            if error.stable_code != "operation_key_taken" or operation.request_hash is None:
                raise
            known = await self._known(operation.key, operation.request_hash)
            if known is None:
                raise
            return known
        self._board.take_in(operation)
        self._runner.kick(operation.id)
        return operation

    async def _known(self, key: str | None, request_hash: str) -> Operation | None:
        if key is None:
            return None
        known = await self._operations.find_by_key(key)
        if known is not None and known.request_hash != request_hash:
            raise Conflict("This idempotency key was used for another request.", code="idempotency_key_reused")
        return known

    # -- room for one more -------------------------------------------------------------------------------------------

    async def _check_room(self, principal: Principal, kind: InstanceKind, plan: str) -> None:
        # Operations first: one that ends in between has its instance stored by then, and is not missed.
        unfinished = await self._operations.list_unfinished_of(principal.user_id)
        if principal.is_admin:
            return
        if len(unfinished) >= self._under_way_per_user:
            raise TooManyRequests(
                f"{len(unfinished)} operations of this account are under way; wait for one to end.",
                retry_after_seconds=RETRY_SECONDS,
            )
        ids = {
            each.instance_id
            for each in unfinished
            if each.kind is OperationKind.PROVISION and each.instance_kind is kind
        }
        ids |= await self._directory.live_ids_of(principal.user_id, kind)
        check_covers(await self._entitlements.of(principal.user_id), kind, plan, used=len(ids))
        coming = await self._entitlements.coming(principal.user_id)
        if coming is not None:
            check_will_cover(coming, kind, plan, used=len(ids))

    # -- looking -----------------------------------------------------------------------------------------------------

    async def get(self, operation_id: str, principal: Principal) -> Operation:
        """Raises NotFound alike for what is missing and what is another customer's."""
        operation = await self._operations.get(operation_id)
        if operation is None or (operation.owner_id != principal.user_id and not principal.is_admin):
            raise NotFound
        return operation

    async def page(
        self,
        *,
        owner_id: str | None,
        limit: int,
        after: str | None,
        phases: Sequence[Phase] | None = None,
    ) -> tuple[list[Operation], str | None]:
        """Newest first, and what to ask for the next page with. `owner_id` None: everybody's."""
        found = await self._operations.page(owner_id=owner_id, phases=phases, limit=limit + 1, after=after)
        shown = found[:limit]
        return shown, shown[-1].id if len(found) > limit else None

    # -- changing one's mind -----------------------------------------------------------------------------------------

    async def cancel(self, operation_id: str, principal: Principal) -> Operation:
        """Raises NotFound as `get`, Conflict (`not_cancelable`) when it is too late, or of a kind that is not."""
        operation = await self.get(operation_id, principal)
        canceled = None
        if operation.kind is OperationKind.PROVISION:
            canceled = await self._operations.request_cancel(operation.id, sorted(machine.CANCELABLE))
        if canceled is None:
            raise Conflict("This operation cannot be canceled any more.", code="not_cancelable")
        self._board.take_in(canceled)
        self._runner.tell_canceled(operation.id)
        return canceled

    async def retry(self, operation_id: str) -> Operation:
        """From an end that needs somebody back to work. Raises NotFound, Conflict."""

        def change(operation: Operation, now: datetime) -> Operation:
            if operation.phase not in machine.NEEDS_AN_ADMINISTRATOR:
                raise Conflict("This operation is not waiting for anybody.", code="not_retryable")
            return machine.retried(operation, now)

        operation = await self._amend(operation_id, change)
        self._runner.kick(operation.id)
        return operation

    async def forget(self, operation_id: str) -> Operation:
        """An administrator's: give up on what is left. Its record and its vmid are freed, machines are left alone.
        Raises NotFound, Conflict."""

        def change(operation: Operation, now: datetime) -> Operation:
            if operation.phase not in machine.NEEDS_AN_ADMINISTRATOR:
                raise Conflict("This operation is not waiting for anybody.", code="not_forgettable")
            return machine.moved(operation, Phase.FORGOTTEN, now)

        operation = await self._amend(operation_id, change)
        if operation.kind in (OperationKind.PROVISION, OperationKind.DELETE):
            with suppress(NotFound):
                await self._directory.remove(operation.instance_id)
        await self._effects.release_vmid(operation)
        return operation

    async def _amend(self, operation_id: str, change: Callable[[Operation, datetime], Operation]) -> Operation:
        for _ in range(_AMEND_ATTEMPTS):
            operation = await self._operations.get(operation_id)
            if operation is None:
                raise NotFound
            try:
                stored = await self._operations.amend(change(operation, self._clock.now()))
            except StaleRevision:
                continue
            self._board.take_in(stored)
            return stored
        raise Conflict("Others are changing this operation at the same time; try again.", code="stale_revision")


def _too_many() -> Overloaded:
    return Overloaded("Too many requests of this account are under way; try again.")


def _scoped(user_id: str, key: str) -> str:
    """The scope's length tells where it ends: no key can reach into another scope."""
    return f"{len(user_id)}:{user_id}:{key}"


def _hash_of(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
