"""One at a time for each customer: orders, events and the scheduler never work on the same account side by side.

Within the process by a lock, between processes by a lease that is renewed for as long as the turn lasts. A process that
stood still for longer than its lease has lost it; `check` right before a step that hurts says so, and every write of an
account is a compare-and-set besides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from controlplane.errors import Overloaded, StaleRevision, StorageUnavailable
from controlplane.models import Lease
from controlplane.ports import LeaseRepository

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
RENEWAL_SECONDS = 5.0
WAITERS_PER_USER = 20
WAIT_SECONDS = 15.0
_LOOK_SECONDS = 0.1


@dataclass(slots=True)
class _Queue:
    """Those of this process who want the same account. `news` is what the latest found out, since when."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    news: tuple[float, Any] | None = None


class Turn:
    """The right to work on one account now. Times are the loop's."""

    def __init__(self, leases: LeaseRepository, lease: Lease, queue: _Queue) -> None:
        self._leases = leases
        self._lease = lease
        self._queue = queue

    async def check(self) -> None:
        """Raises StaleRevision when the lease has passed on."""
        lease = self._lease
        if not await self._leases.is_current(lease.name, lease.owner, lease.fence):
            raise StaleRevision("This took too long; another process has taken over.")

    def leave(self, began_at: float, found: Any) -> None:
        """For those who wait already: what was looked at from this moment on."""
        self._queue.news = (began_at, found)

    def found_since(self, moment: float) -> Any | None:
        """What another of this process looked at after that moment; None when nobody did."""
        news = self._queue.news
        return None if news is None or news[0] < moment else news[1]


class Turns:
    """`owner` names this process among all that share the database."""

    def __init__(self, leases: LeaseRepository, owner: str, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._leases = leases
        self._owner = owner
        self._wait_seconds = wait_seconds
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def of(self, user_id: str) -> AsyncIterator[Turn]:
        """Raises Overloaded when too many wait for this account, or it is not free in time."""
        queue = self._queues.setdefault(user_id, _Queue())
        if queue.users >= WAITERS_PER_USER:
            raise _busy()
        queue.users += 1
        try:
            async with self._locked(queue.lock), self._leased(f"billing:{user_id}", queue) as turn:
                yield turn
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[user_id]

    @asynccontextmanager
    async def _locked(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await lock.acquire()
        except TimeoutError as error:
            raise _busy() from error
        try:
            yield
        finally:
            lock.release()

    @asynccontextmanager
    async def _leased(self, name: str, queue: _Queue) -> AsyncIterator[Turn]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_seconds
        while (lease := await self._leases.acquire(name, self._owner, ttl_seconds=LEASE_SECONDS)) is None:
            if loop.time() > deadline:
                raise _busy()
            await asyncio.sleep(_LOOK_SECONDS)
        renewing = asyncio.create_task(self._renew(name))
        try:
            yield Turn(self._leases, lease, queue)
        finally:
            renewing.cancel()
            await self._leases.release(name, self._owner)

    async def _renew(self, name: str) -> None:
        """A lease that had passed on gets another fence, which `Turn.check` sees."""
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            try:
                await self._leases.acquire(name, self._owner, ttl_seconds=LEASE_SECONDS)
            except StorageUnavailable as error:
                logger.warning("a turn could not be renewed", extra={"lease": name, "why": error.message})


def _busy() -> Overloaded:
    return Overloaded("This account's billing is being worked on; try again.")
