"""What provisioning works with, in memory: operations under leases, vmids, machines, routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

from controlplane.errors import Conflict, ProviderRefused, StaleRevision, StorageUnavailable, VmidTaken
from controlplane.models import Instance, Lease, Machine, MachineAddress, MachineSpec, Operation, Phase
from tests.fakes import FakeClock


class FakeOperationRepository:
    """`is_away` makes every call fail as an unreachable database does; `history` has every phase that was stored."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.operations: dict[str, Operation] = {}
        self.leases: dict[str, float] = {}
        self.history: list[tuple[str, Phase]] = []
        self.is_away = False
        self._lease_seconds = 0.0

    def _reach(self) -> None:
        if self.is_away:
            raise StorageUnavailable

    def _put(self, operation: Operation) -> Operation:
        self.operations[operation.id] = operation
        self.history.append((operation.id, operation.phase))
        return operation

    async def deployment_id(self) -> str:
        return "abc123"

    async def add(self, operation: Operation) -> None:
        self._reach()
        self._require_one_active(operation)
        if operation.key is not None and await self.find_by_key(operation.key) is not None:
            raise Conflict("taken", code="operation_key_taken")
        self._put(operation)

    def _require_one_active(self, operation: Operation) -> None:
        for known in self.operations.values():
            if known.id != operation.id and known.instance_id == operation.instance_id and not known.is_finished:
                raise Conflict("busy", code="operation_in_progress")

    async def get(self, operation_id: str) -> Operation | None:
        self._reach()
        return self.operations.get(operation_id)

    async def find_by_key(self, key: str) -> Operation | None:
        self._reach()
        return next((each for each in self.operations.values() if each.key == key), None)

    async def find_active(self, instance_id: str) -> Operation | None:
        return next((each for each in await self.list_active() if each.instance_id == instance_id), None)

    async def list_active(self) -> list[Operation]:
        self._reach()
        return [each for each in self.operations.values() if not each.is_finished]

    async def has_deleted(self, instance_id: str) -> bool:
        self._reach()
        return any(each.instance_id == instance_id and each.phase is Phase.DELETED for each in self.operations.values())

    async def page(
        self, *, owner_id: str | None, phases: Sequence[Phase] | None, limit: int, after: str | None
    ) -> list[Operation]:
        self._reach()
        newest_first = sorted(self.operations.values(), key=lambda each: each.id, reverse=True)
        return [
            each
            for each in newest_first
            if (owner_id is None or each.owner_id == owner_id)
            and (phases is None or each.phase in phases)
            and (after is None or each.id < after)
        ][:limit]

    async def list_unfinished_of(self, owner_id: str) -> list[Operation]:
        return [each for each in await self.list_active() if each.owner_id == owner_id]

    def _is_free(self, operation: Operation) -> bool:
        return operation.runner is None or self.leases.get(operation.id, 0) <= self._clock.monotonic()

    async def list_due(self, now: datetime, *, provider: str | None, limit: int) -> list[str]:
        return [
            each.id
            for each in await self.list_active()
            if each.due_at <= now and each.provider in (None, provider) and self._is_free(each)
        ][:limit]

    async def claim(self, operation_id: str, runner: str, *, lease_seconds: float) -> Operation | None:
        self._reach()
        operation = self.operations.get(operation_id)
        if operation is None or operation.is_finished or not self._is_free(operation):
            return None
        self._lease_seconds = lease_seconds
        self.leases[operation_id] = self._clock.monotonic() + lease_seconds
        changed = replace(operation, runner=runner, fence=operation.fence + 1, revision=operation.revision + 1)
        return self._put(changed)

    def _held(self, operation: Operation) -> Operation | None:
        self._reach()
        known = self.operations.get(operation.id)
        if known is None or (known.runner, known.fence) != (operation.runner, operation.fence):
            return None
        return known

    async def renew(self, operation: Operation) -> Operation | None:
        known = self._held(operation)
        if known is not None:
            self.leases[operation.id] = self._clock.monotonic() + self._lease_seconds
        return known

    async def save(self, operation: Operation) -> Operation:
        known = self._held(operation)
        if known is None or known.revision != operation.revision:
            raise StaleRevision("stale")
        self.leases[operation.id] = self._clock.monotonic() + self._lease_seconds
        return self._put(replace(operation, revision=operation.revision + 1))

    async def release(self, operation: Operation) -> None:
        known = self._held(operation)
        if known is not None:
            self.operations[operation.id] = replace(known, runner=None)

    async def request_cancel(self, operation_id: str, phases: Sequence[Phase]) -> Operation | None:
        self._reach()
        operation = self.operations.get(operation_id)
        if operation is None or operation.phase not in phases:
            return None
        return self._put(replace(operation, is_cancel_requested=True, revision=operation.revision + 1))

    async def amend(self, operation: Operation) -> Operation:
        self._reach()
        if self.operations[operation.id].revision != operation.revision:
            raise StaleRevision("stale")
        if not operation.is_finished:
            self._require_one_active(operation)
        return self._put(replace(operation, revision=operation.revision + 1, runner=None))

    async def changed_since(self, since: datetime) -> tuple[list[Operation], datetime]:
        self._reach()
        return list(self.operations.values()), self._clock.now()

    async def server_now(self) -> datetime:
        self._reach()
        return self._clock.now()


class FakeVmidReservations:
    def __init__(self) -> None:
        self.held: dict[int, str] = {}
        self._next = 0

    async def reserve(self, operation_id: str, first: int, last: int, is_taken: Callable[[int], bool]) -> int | None:
        for vmid, holder in self.held.items():
            if holder == operation_id:
                return vmid
        size = last - first + 1
        for _ in range(size):
            vmid = first + self._next % size
            self._next += 1
            if vmid not in self.held and not is_taken(vmid):
                self.held[vmid] = operation_id
                return vmid
        return None

    async def release(self, operation_id: str) -> None:
        self.held = {vmid: holder for vmid, holder in self.held.items() if holder != operation_id}

    async def holders(self) -> dict[int, str]:
        return dict(self.held)


class FakeLeaseRepository:
    """Leases without an end."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.owners: dict[str, str] = {}

    async def acquire(self, name: str, owner: str, *, ttl_seconds: float) -> Lease | None:
        if self.owners.setdefault(name, owner) != owner:
            return None
        return Lease(name, owner, 1, self._clock.now())

    async def release(self, name: str, owner: str) -> None:
        if self.owners.get(name) == owner:
            del self.owners[name]

    async def is_current(self, name: str, owner: str, fence: int) -> bool:
        return self.owners.get(name) == owner


class FakeProvider:
    """Machines in a dict. `calls` has what was asked; `before` and `after` map a method's name to what is awaited then,
    which may raise: an answer that got lost is an `after` that raises."""

    name = "fake"

    def __init__(self, *, port: int = 9000) -> None:
        self.machines: dict[int, Machine] = {}
        self.tokens: dict[int, str] = {}
        self.calls: list[tuple[str, int]] = []
        self.before: dict[str, Callable[[int], Awaitable[None]]] = {}
        self.after: dict[str, Callable[[int], Awaitable[None]]] = {}
        self.address: MachineAddress | None = MachineAddress("127.0.0.1", port, 8080)

    async def _enter(self, name: str, vmid: int) -> None:
        self.calls.append((name, vmid))
        if name in self.before:
            await self.before[name](vmid)

    async def _leave(self, name: str, vmid: int) -> None:
        if name in self.after:
            await self.after[name](vmid)

    async def find(self, vmid: int) -> Machine | None:
        await self._enter("find", vmid)
        return self.machines.get(vmid)

    async def create(self, spec: MachineSpec) -> None:
        await self._enter("create", spec.vmid)
        if spec.vmid in self.machines:
            raise VmidTaken("taken", operator_message="taken")
        self.machines[spec.vmid] = Machine(spec.vmid, spec.operation_id, False)
        self.tokens[spec.vmid] = spec.agent_token
        await self._leave("create", spec.vmid)

    async def start(self, vmid: int) -> None:
        await self._enter("start", vmid)
        self.machines[vmid] = replace(self.machines[vmid], is_running=True)
        await self._leave("start", vmid)

    async def locate(self, vmid: int) -> MachineAddress | None:
        await self._enter("locate", vmid)
        return self.address

    async def stop(self, vmid: int) -> None:
        await self._enter("stop", vmid)
        if vmid in self.machines:
            self.machines[vmid] = replace(self.machines[vmid], is_running=False)
        await self._leave("stop", vmid)

    async def destroy(self, vmid: int, *, operation_id: str) -> None:
        await self._enter("destroy", vmid)
        machine = self.machines.get(vmid)
        if machine is not None and machine.operation_id != operation_id:
            raise ProviderRefused("no", operator_message="another's")
        self.machines.pop(vmid, None)
        await self._leave("destroy", vmid)

    async def list_marked(self) -> list[Machine]:
        await self._enter("list_marked", 0)
        return [machine for machine in self.machines.values() if machine.operation_id is not None]

    async def close(self) -> None:
        """Nothing is open."""

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)


class FakePublisher:
    """Which instances have routes; `is_broken` makes publishing fail."""

    def __init__(self) -> None:
        self.published: set[str] = set()
        self.retired: list[str] = []
        self.is_broken = False

    async def publish(self, instance: Instance) -> None:
        if self.is_broken:
            raise Conflict("the edge refuses", code="edge_refused")
        self.published.add(instance.id)

    async def withdraw(self, instance: Instance) -> None:
        self.published.discard(instance.id)

    async def retire(self, instance: Instance) -> None:
        self.retired.append(instance.id)
