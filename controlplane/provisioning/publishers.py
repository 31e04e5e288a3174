"""Announcing to the outside what came and went: one publisher that stands for all that are configured."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.models import Instance
from controlplane.ports import Publisher


class AllPublishers:
    """Satisfies `ports.Publisher`. Withdraws in the opposite order; the first that fails ends the call, which is then
    made again as a whole: each publisher is idempotent."""

    def __init__(self, publishers: Sequence[Publisher]) -> None:
        self._publishers = tuple(publishers)

    async def publish(self, instance: Instance) -> None:
        for publisher in self._publishers:
            await publisher.publish(instance)

    async def withdraw(self, instance: Instance) -> None:
        for publisher in reversed(self._publishers):
            await publisher.withdraw(instance)

    async def retire(self, instance: Instance) -> None:
        for publisher in reversed(self._publishers):
            await publisher.retire(instance)
