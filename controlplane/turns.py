"""One at a time under each name: a customer's account, a customer's quota, an instance's backups.

Within the process by a lock, between processes by a lease that is renewed for as long as the turn lasts. A process that
stood still for longer than its lease has lost it; `Turn.check` right before a step that hurts says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from controlplane.errors import ControlPlaneError, StaleRevision
from controlplane.models import Lease
from controlplane.ports import LeaseRepository

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
RENEWALS_PER_LEASE = 3
_LOOK_SECONDS = 0.05


@dataclass(slots=True)
class _Queue:
    """Those of this process who want the same name. `news` is what the latest found out, since when."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    news: tuple[float, Any] | None = None


class Turn:
    """The right to work under one name now. Times are the loop's."""

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
    """`owner` names this process among all that share the database; leases are called `<scope>:<name>`.

    `at_most` bounds those of this process who have the turn or wait for it, `wait_seconds` how long each waits (0: not
    at all). `busy` makes what is raised at either bound.
    """

    def __init__(
        self,
        leases: LeaseRepository,
        owner: str,
        scope: str,
        *,
        at_most: int,
        wait_seconds: float,
        busy: Callable[[], ControlPlaneError],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._leases = leases
        self._owner = owner
        self._scope = scope
        self._at_most = at_most
        self._wait_seconds = wait_seconds
        self._busy = busy
        self._lease_seconds = lease_seconds
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[Turn]:
        """Raises what `busy` makes when too many wait for this name, or it is not free in time."""
        deadline = asyncio.get_running_loop().time() + self._wait_seconds
        queue = self._queues.setdefault(name, _Queue())
        if queue.users >= self._at_most:
            raise self._busy()
        queue.users += 1
        try:
            async with self._locked(queue.lock), self._leased(f"{self._scope}:{name}", queue, deadline) as turn:
                yield turn
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[name]

    @asynccontextmanager
    async def _locked(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await lock.acquire()
        except TimeoutError as error:
            raise self._busy() from error
        try:
            yield
        finally:
            lock.release()

    @asynccontextmanager
    async def _leased(self, name: str, queue: _Queue, deadline: float) -> AsyncIterator[Turn]:
        while (lease := await self._acquire(name)) is None:
            if asyncio.get_running_loop().time() >= deadline:
                raise self._busy()
            await asyncio.sleep(_LOOK_SECONDS)
        renewing = asyncio.create_task(self._renew(name))
        try:
            yield Turn(self._leases, lease, queue)
        finally:
            renewing.cancel()
            await self._release(name)

    async def _acquire(self, name: str) -> Lease | None:
        return await self._leases.acquire(name, self._owner, ttl_seconds=self._lease_seconds)

    async def _renew(self, name: str) -> None:
        """A lease that had passed on gets another fence, which `Turn.check` sees."""
        while True:
            await asyncio.sleep(self._lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self._acquire(name)
            except ControlPlaneError as error:  # the lease may still hold when the database returns
                logger.warning("a turn could not be renewed", extra={"lease": name, "why": error.message})

    async def _release(self, name: str) -> None:
        try:
            await self._leases.release(name, self._owner)
        except ControlPlaneError as error:  # it ends by itself; what was done in the turn matters more
            logger.warning("a turn could not be given back", extra={"lease": name, "why": error.message})
