"""From an IDE's cookie to whose it is, on every request, and the end of what is open when it may no longer be.

As the authenticator does, a session that was looked up is remembered, and good only while storage has confirmed it and
its login during the latest FRESH_SECONDS; `revalidate` (a job) confirms those in use. What ends here ends its open
connections at once; what another process ended is found within that job's interval. Whether the owner's plan has an IDE
is asked when a session is taken up, and again when the account changes (`review`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from controlplane.auth.authenticator import FRESH_SECONDS, IN_USE_SECONDS, Authenticator
from controlplane.auth.live import LiveConnections, Watch
from controlplane.auth.tokens import secret_hash
from controlplane.errors import TooManyRequests, Unauthenticated
from controlplane.instances import InstanceDirectory
from controlplane.models import IdeMode, IdeSession, Instance, Principal
from controlplane.ports import Clock, IdeSessionRepository
from controlplane.rights import OwnerRights

REMEMBERED = 20_000
CONNECTIONS_PER_SESSION = 512
"""Requests and websockets under way on one cookie: a workbench has thirty, behind HTTP/2 a hundred at its start."""

SLIDE_FRACTION = 20
"""The idle end is moved on in storage each time this part of the idle time has passed, and not at every request."""

MAX_COOKIE_CHARACTERS = 128
OnEnd = Callable[[], None]


@dataclass(slots=True, eq=False)
class Grant:
    """A session that is good now. Times are of the monotonic clock. `connections` are told when it ends."""

    session: IdeSession
    confirmed_at: float
    used_at: float
    slid_at: float
    watch: Watch | None = None
    connections: set[OnEnd] = field(default_factory=set)

    @property
    def principal(self) -> Principal:
        return self.session.principal

    def hold(self, on_end: OnEnd) -> None:
        """`on_end` is called once if the session ends before `release`. Raises TooManyRequests."""
        if len(self.connections) >= CONNECTIONS_PER_SESSION:
            raise TooManyRequests("Too many connections of this IDE are open.", retry_after_seconds=2)
        self.connections.add(on_end)

    def release(self, on_end: OnEnd) -> None:
        self.connections.discard(on_end)


class IdeSessions:
    def __init__(
        self,
        repository: IdeSessionRepository,
        authenticator: Authenticator,
        live: LiveConnections,
        directory: InstanceDirectory,
        rights: OwnerRights,
        clock: Clock,
        *,
        idle_seconds: int,
        remembered: int = REMEMBERED,
    ) -> None:
        self._repository = repository
        self._authenticator = authenticator
        self._live = live
        self._directory = directory
        self._rights = rights
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._limit = remembered
        self._grants: OrderedDict[str, Grant] = OrderedDict()
        self._ended_instances: dict[str, None] = {}
        directory.add_listener(self._on_instance_change)

    # -- on a request --------------------------------------------------------------------------------------------------

    def find_cached(self, secrets: Sequence[str], reference: str, mode: IdeMode) -> Grant | None:
        """The grant of one of these cookies for this IDE, if it was confirmed lately; else None, nothing is decided."""
        moment = self._clock.monotonic()
        for secret in secrets:
            grant = self._grants.get(secret_hash(secret))
            if (
                grant is not None
                and moment - grant.confirmed_at <= FRESH_SECONDS
                and self._fits(grant, reference, mode)
            ):
                grant.used_at = moment
                return grant
        return None

    async def find(self, secrets: Sequence[str], reference: str, mode: IdeMode) -> Grant:
        """Raises Unauthenticated (`ide_session_missing`) alike whatever is wrong; StorageUnavailable."""
        hashes = [secret_hash(secret) for secret in secrets if len(secret) <= MAX_COOKIE_CHARACTERS]
        asked_at = self._clock.monotonic()
        found = await self._repository.get_many(hashes) if hashes else {}
        gone = await self._authenticator.find_gone([each.principal for each in found.values()])
        for cookie_hash, session in found.items():
            if session.principal.credential_id in gone or not self._is_good(session):
                continue
            if cookie_hash not in self._grants and not await self._is_covered(session):
                continue
            grant = self._remember(cookie_hash, session, asked_at)
            if self._fits(grant, reference, mode):
                return grant
        raise Unauthenticated("Open this IDE from the dashboard.", code="ide_session_missing")

    def _fits(self, grant: Grant, reference: str, mode: IdeMode) -> bool:
        instance = self._directory.get(grant.session.instance_id)
        if instance is None or reference not in (instance.id, str(instance.vmid)):
            return False
        return grant.session.mode is mode and self._is_good(grant.session)

    def _is_good(self, session: IdeSession) -> bool:
        now = self._clock.now()
        instance = self._directory.get(session.instance_id)
        return (
            now < session.idle_until
            and now < session.ends_at
            and instance is not None
            and instance.suspension is None
            and instance.owner_id == session.owner_id
        )

    async def _is_covered(self, session: IdeSession) -> bool:
        instance = self._directory.get(session.instance_id)
        return instance is not None and await self._rights.covers_ide(session.principal, instance)

    def _remember(self, cookie_hash: str, session: IdeSession, asked_at: float) -> Grant:
        known = self._grants.get(cookie_hash)
        if known is not None:
            known.session = session
            known.confirmed_at = max(known.confirmed_at, asked_at)
            known.used_at = self._clock.monotonic()
            return known
        moment = self._clock.monotonic()
        grant = Grant(session, confirmed_at=asked_at, used_at=moment, slid_at=moment)
        grant.watch = self._live.watch(session.principal, partial(self._end, cookie_hash))
        self._grants[cookie_hash] = grant
        if len(self._grants) > self._limit:
            self._forget_one()
        return grant

    def _forget_one(self) -> None:
        """The oldest without open connections: those that have some must be told of their end."""
        for cookie_hash, grant in self._grants.items():
            if not grant.connections:
                self._drop(cookie_hash)
                return

    # -- keeping up ----------------------------------------------------------------------------------------------------

    async def revalidate(self) -> None:
        """Confirm the sessions in use, move their idle ends on, end the others. Raises StorageUnavailable."""
        moment = self._clock.monotonic()
        for cookie_hash, grant in list(self._grants.items()):
            if grant.connections:
                grant.used_at = moment
            elif moment - grant.used_at > IN_USE_SECONDS:
                self._drop(cookie_hash)
        await self._slide(moment)
        hashes = list(self._grants)
        stored = await self._repository.get_many(hashes)
        gone = await self._authenticator.find_gone([grant.principal for grant in self._grants.values()])
        for cookie_hash in hashes:
            if cookie_hash in self._grants:
                self._judge(cookie_hash, self._grants[cookie_hash], stored.get(cookie_hash), gone, moment)
        await self._remove_ended()

    def _judge(self, cookie_hash: str, grant: Grant, stored: IdeSession | None, gone: set[str], moment: float) -> None:
        if stored is None or grant.principal.credential_id in gone or not self._is_good(stored):
            self._end(cookie_hash)
            return
        grant.session = stored
        grant.confirmed_at = max(grant.confirmed_at, moment)

    async def review(self, owner_ids: Set[str]) -> None:
        """The accounts of these owners changed: end what their plans have no longer. Raises StorageUnavailable."""
        for cookie_hash, grant in list(self._grants.items()):
            if grant.session.owner_id in owner_ids and not await self._is_covered(grant.session):
                self._end(cookie_hash)

    async def _slide(self, moment: float) -> None:
        """What was used since it was last moved on; the job's interval is the precision."""
        step = self._idle_seconds / SLIDE_FRACTION
        due = {
            cookie_hash: grant
            for cookie_hash, grant in self._grants.items()
            if grant.used_at > grant.slid_at and moment - grant.slid_at >= step
        }
        if not due:
            return
        idle_until = self._clock.now() + timedelta(seconds=self._idle_seconds)
        await self._repository.extend(list(due), idle_until)
        for grant in due.values():
            grant.slid_at = moment
            grant.session = replace(grant.session, idle_until=max(grant.session.idle_until, idle_until))

    async def _remove_ended(self) -> None:
        """A session that was ended by its instance stays ended when the instance is given back."""
        while self._ended_instances:
            instance_id = next(iter(self._ended_instances))
            await self._repository.remove_of_instance(instance_id)
            del self._ended_instances[instance_id]

    def _on_instance_change(self, before: Instance | None, after: Instance | None) -> None:
        if before is None:
            return
        if after is None or after.owner_id != before.owner_id or (after.suspension and not before.suspension):
            self._ended_instances[before.id] = None
            for cookie_hash, grant in list(self._grants.items()):
                if grant.session.instance_id == before.id:
                    self._end(cookie_hash)

    def _end(self, cookie_hash: str) -> None:
        grant = self._drop(cookie_hash)
        if grant is None:
            return
        connections, grant.connections = grant.connections, set()
        for on_end in connections:
            on_end()

    def _drop(self, cookie_hash: str) -> Grant | None:
        grant = self._grants.pop(cookie_hash, None)
        if grant is not None and grant.watch is not None:
            self._live.release(grant.watch)
        return grant
