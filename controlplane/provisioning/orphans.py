"""Finds machines of ours that nothing belongs to any more, and removes them; never a neighbour's.

A machine is ours when its mark was made by this database: marks begin with its name, so that another control plane on
the same provider, or this one on a new database, touches nothing. Ours is an orphan when the operation that made it is
over without an instance: it was rolled back, canceled, its instance was deleted, or the operation is not known (the
database was put back to an earlier day). What an administrator took out of the records by hand is left alone.

An orphan has to be one for some time, seen by every sweep, and is looked at once more before it is removed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.errors import ProviderError
from controlplane.instances import InstanceDirectory
from controlplane.models import Machine, Operation, Phase
from controlplane.ports import Clock, LeaseRepository, OperationRepository, Provider, VmidReservations

logger = logging.getLogger(__name__)

LEASE = "orphans"
UNKNOWN_LIMIT = 5
"""More machines of unknown operations than this at once are a database that lost its memory, not orphans."""

_OVER = frozenset({Phase.ROLLED_BACK, Phase.CANCELED})
_OVER_WITHOUT_VMID = frozenset({*_OVER, Phase.SUCCEEDED, Phase.FORGOTTEN})


@dataclass(frozen=True, slots=True)
class Orphan:
    """`why` is for an operator; `is_known` whether its operation is."""

    vmid: int
    mark: str
    why: str
    is_known: bool


class OrphanSweep:
    def __init__(
        self,
        *,
        provider: Provider,
        operations: OperationRepository,
        reservations: VmidReservations,
        directory: InstanceDirectory,
        leases: LeaseRepository,
        clock: Clock,
        owner: str,
        lease_seconds: float,
        grace_seconds: float,
    ) -> None:
        self._provider = provider
        self._operations = operations
        self._reservations = reservations
        self._directory = directory
        self._leases = leases
        self._clock = clock
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._grace_seconds = grace_seconds
        self._since: dict[tuple[int, str], float] = {}
        self._seen: Mapping[tuple[int, str], Orphan] = {}

    @property
    def seen(self) -> list[Orphan]:
        """What the latest sweep of this process took for orphans."""
        return list(self._seen.values())

    async def run_once(self) -> None:
        """One sweep, when no other process makes them."""
        lease = await self._leases.acquire(LEASE, self._owner, ttl_seconds=self._lease_seconds)
        if lease is None:
            self._since.clear()
            self._seen = {}
            return
        try:
            marked = await self._provider.list_marked()
        except ProviderError as error:
            logger.warning("orphans cannot be looked for", extra={"why": error.operator_message})
            return
        prefix = f"op_{await self._operations.deployment_id()}_"
        found = [
            orphan
            for machine in marked
            if (machine.operation_id or "").startswith(prefix) and (orphan := await self._judge(machine)) is not None
        ]
        self._remember(found)
        for orphan in self._old_enough(found):
            if not await self._leases.is_current(LEASE, self._owner, lease.fence):
                return
            await self._remove(orphan)
        await self._free_vmids()

    async def _judge(self, machine: Machine) -> Orphan | None:
        mark = machine.operation_id or ""
        operation = await self._operations.get(mark)
        if operation is None:
            if await self._directory.has_machine(mark):
                return None
            return Orphan(machine.vmid, mark, "its operation is not known", is_known=False)
        why = await self._reason(operation)
        return None if why is None else Orphan(machine.vmid, mark, why, is_known=True)

    async def _reason(self, operation: Operation) -> str | None:
        """Why nothing belongs to this operation's machine; None while something does, or somebody has to decide."""
        if operation.phase in _OVER:
            return f"its operation ended as {operation.phase.value}"
        if operation.phase is not Phase.SUCCEEDED or await self._directory.fetch(operation.instance_id) is not None:
            return None
        if await self._operations.has_deleted(operation.instance_id):
            return "its instance was deleted"
        return None

    def _remember(self, found: list[Orphan]) -> None:
        now = self._clock.monotonic()
        self._seen = {(orphan.vmid, orphan.mark): orphan for orphan in found}
        self._since = {key: self._since.get(key, now) for key in self._seen}

    def _old_enough(self, found: list[Orphan]) -> list[Orphan]:
        now = self._clock.monotonic()
        due = [each for each in found if now - self._since[each.vmid, each.mark] >= self._grace_seconds]
        unknown = sum(not orphan.is_known for orphan in found)
        if unknown > UNKNOWN_LIMIT:
            logger.error(
                "too many machines of unknown operations: none of them is removed; was an old backup restored?",
                extra={"machines": unknown, "limit": UNKNOWN_LIMIT},
            )
            return [orphan for orphan in due if orphan.is_known]
        return due

    async def _remove(self, orphan: Orphan) -> None:
        extra = {"vmid": orphan.vmid, "mark": orphan.mark, "why": orphan.why}
        try:
            machine = await self._provider.find(orphan.vmid)
            if machine is None or machine.operation_id != orphan.mark or await self._judge(machine) is None:
                return
            await self._provider.destroy(orphan.vmid, operation_id=orphan.mark)
        except ProviderError as error:
            logger.warning("an orphan could not be removed", extra={**extra, "error": error.operator_message})
            return
        logger.warning("an orphan was removed", extra=extra)

    async def _free_vmids(self) -> None:
        """Reservations whose operation ended before it could give them back."""
        for operation_id in (await self._reservations.holders()).values():
            operation = await self._operations.get(operation_id)
            if operation is None or operation.phase in _OVER_WITHOUT_VMID:
                await self._reservations.release(operation_id)
