"""What is known here of operations: the one that each instance is in, and the news of those that changed.

Operations that run in this process tell it at once; those of other processes arrive by `sync`, which a job calls every
second. Held in memory: the active ones, and the revisions of those that ended lately.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from controlplane.models import Operation
from controlplane.ports import OperationRepository

REMEMBERED_REVISIONS = 10_000

OperationListener = Callable[[Operation], None]
"""Called with every operation that has a new phase or a new state of a step."""


class OperationBoard:
    def __init__(self, repository: OperationRepository) -> None:
        self._repository = repository
        self._active: dict[str, Operation] = {}
        self._revisions: OrderedDict[str, int] = OrderedDict()
        self._sync_from: datetime | None = None
        self._listeners: list[OperationListener] = []

    def add_listener(self, listener: OperationListener) -> None:
        self._listeners.append(listener)

    def of_instance(self, instance_id: str) -> Operation | None:
        """What is done to this instance now."""
        return self._active.get(instance_id)

    def take_in(self, operation: Operation) -> None:
        if operation.revision <= self._revisions.get(operation.id, 0):
            return
        self._revisions[operation.id] = operation.revision
        self._revisions.move_to_end(operation.id)
        while len(self._revisions) > REMEMBERED_REVISIONS + len(self._active):
            self._revisions.popitem(last=False)
        known = self._active.get(operation.instance_id)
        if not operation.is_finished:
            self._active[operation.instance_id] = operation
        elif known is not None and known.id == operation.id:
            del self._active[operation.instance_id]
        for listener in self._listeners:
            listener(operation)

    async def load(self) -> None:
        self._sync_from = await self._repository.server_now()
        for operation in await self._repository.list_active():
            self.take_in(operation)

    async def sync(self) -> None:
        """Take in what other processes wrote."""
        if self._sync_from is None:
            await self.load()
            return
        changed, self._sync_from = await self._repository.changed_since(self._sync_from)
        for operation in sorted(changed, key=lambda each: each.updated_at):
            self.take_in(operation)
