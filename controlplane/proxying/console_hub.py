"""The consoles of all instances: who may view which, the limits, and what ends a viewer.

A channel is opened for an instance's first viewer and kept for a while after its last, so that a reload goes on where
it was. Bytes are moved by `console_channel`, a viewer's protocol is `console_viewer`'s.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter as Tally
from collections.abc import Callable, Coroutine
from typing import Any

from controlplane.auth.api_keys import Scope
from controlplane.auth.authenticator import Authenticator
from controlplane.auth.live import LiveConnections
from controlplane.auth.tickets import ConsoleTickets
from controlplane.errors import (
    ControlPlaneError,
    Forbidden,
    NotFound,
    Overloaded,
    StorageError,
    Suspended,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from controlplane.instances import InstanceDirectory
from controlplane.models import AgentState, Connection, Instance, InstanceKind, Principal
from controlplane.observability.audit import AuditTrail
from controlplane.observability.metrics import Metrics
from controlplane.ports import Clock
from controlplane.proxying.console_channel import Channel, Dial
from controlplane.proxying.console_viewer import Viewer
from controlplane.proxying.frames import CloseCode

AUTH_SECONDS = 10.0
WARNING_SECONDS = 60.0
PING_SECONDS = 20.0
PINGS_UNANSWERED = 3
SLOW_SECONDS = 30.0
LINGER_SECONDS = 30.0
VIEWER_LIMIT = 20_000
STRANGER_LIMIT = 1_000
VIEWERS_PER_INSTANCE = 5_000
VIEWERS_PER_USER = 5_000
SCROLLBACK_BYTES = 2 << 20
SCROLLBACK_TOTAL_BYTES = 256 << 20
STOP_SECONDS = 2.0

_CLOSE_CODES: tuple[tuple[type[ControlPlaneError], CloseCode], ...] = (
    (Unauthenticated, CloseCode.NOT_AUTHENTICATED),
    (Suspended, CloseCode.SUSPENDED),
    (Forbidden, CloseCode.NOT_PERMITTED),
    (NotFound, CloseCode.NOT_PERMITTED),
    (TooManyRequests, CloseCode.TOO_MANY),
    (Unavailable, CloseCode.AGENT_UNAVAILABLE),
    (StorageError, CloseCode.AGENT_UNAVAILABLE),
)


def close_code_of(error: ControlPlaneError) -> CloseCode:
    return next((code for kind, code in _CLOSE_CODES if isinstance(error, kind)), CloseCode.AGENT_UNAVAILABLE)


class ConsoleHub:
    """Satisfies `console_viewer.Desk`. `random_id` names streams."""

    def __init__(
        self,
        *,
        directory: InstanceDirectory,
        authenticator: Authenticator,
        live: LiveConnections,
        tickets: ConsoleTickets,
        audit: AuditTrail,
        clock: Clock,
        metrics: Metrics,
        dial: Dial,
        random_id: Callable[[], str] = lambda: secrets.token_hex(8),
        viewers_per_instance: int = VIEWERS_PER_INSTANCE,
        viewers_per_user: int = VIEWERS_PER_USER,
    ) -> None:
        self._directory = directory
        self._authenticator = authenticator
        self._live = live
        self._tickets = tickets
        self._audit = audit
        self._clock = clock
        self._metrics = metrics
        self._dial = dial
        self._random_id = random_id
        self._viewers_per_instance = viewers_per_instance
        self._viewers_per_user = viewers_per_user
        self._viewers: set[Viewer] = set()
        self._per_user: Tally[str] = Tally()
        self._strangers = 0
        self._channels: dict[str, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pinged_upstreams_at = 0.0
        self._is_closing = False
        self._all_gone = asyncio.Event()
        directory.add_listener(self._on_instance_change)

    # -- viewers come and go -----------------------------------------------------------------------------------------

    def new_viewer(
        self, kind: InstanceKind, reference: str, *, request_id: str, address: str, compressed: bool
    ) -> Viewer:
        """For a connection that is about to be upgraded. Raises Overloaded at the limits."""
        if self._is_closing or len(self._viewers) >= VIEWER_LIMIT or self._strangers >= STRANGER_LIMIT:
            raise Overloaded("Too many consoles are open; try again.")
        viewer = Viewer(self, kind, reference, request_id=request_id, address=address, compressed=compressed)
        self._viewers.add(viewer)
        self._strangers += 1
        self._metrics.console_viewers.inc()
        return viewer

    def redeem(self, viewer: Viewer, ticket: str) -> None:
        """Admit by a one-time ticket, in the place of the first `auth`."""
        viewer.is_admitting = True
        self._spawn(self._admit_by_ticket(viewer, ticket))

    def left(self, viewer: Viewer) -> None:
        if viewer not in self._viewers:
            return
        self._viewers.discard(viewer)
        self._metrics.console_viewers.dec()
        if viewer.watch is not None:
            self._live.release(viewer.watch)
            viewer.watch = None
        if viewer.principal is None:
            self._strangers -= 1
        else:
            self._per_user[viewer.principal.user_id] -= 1
            if not self._per_user[viewer.principal.user_id]:
                del self._per_user[viewer.principal.user_id]
        if not self._viewers:
            self._all_gone.set()

    # -- Desk --------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._clock.monotonic()

    def admit(self, viewer: Viewer, token: str) -> None:
        self._spawn(self._admit_by_token(viewer, token))

    def commanded(self, viewer: Viewer) -> None:
        principal, feed = viewer.principal, viewer.feed
        if principal is None or feed is None:
            return
        self._audit.note(
            "instance.console_command",
            feed.instance_id,
            actor=principal,
            request_id=viewer.request_id,
            address=viewer.address,
        )

    def missed(self, outputs: int) -> None:
        self._metrics.console_outputs_missed.inc(outputs)

    # -- admission ---------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit_by_token(self, viewer: Viewer, token: str) -> None:
        try:
            principal = self._authenticator.authenticate_cached(token)
            if principal is None:
                principal = await self._authenticator.authenticate(token)
            self._let_in(viewer, principal, self.now() + self._authenticator.seconds_left(token))
        except ControlPlaneError as error:
            viewer.close(close_code_of(error), error.message)

    async def _admit_by_ticket(self, viewer: Viewer, secret: str) -> None:
        try:
            ticket = await self._tickets.redeem(secret)
            left = float("inf")
            if ticket.credential_expires_at is not None:
                left = (ticket.credential_expires_at - self._clock.now()).total_seconds()
            instance = self._directory.find(viewer.reference, ticket.principal, viewer.kind)
            if instance.id != ticket.instance_id:
                raise Unauthenticated("This ticket is for another console.", code="ticket_invalid")
            self._let_in(viewer, ticket.principal, self.now() + left)
        except ControlPlaneError as error:
            viewer.close(close_code_of(error), error.message)

    def _let_in(self, viewer: Viewer, principal: Principal, expires_at: float) -> None:
        if not viewer.is_open:
            return
        if not principal.may(Scope.INSTANCES_CONSOLE):
            raise Forbidden(f"This API key lacks the scope {Scope.INSTANCES_CONSOLE.value}.", code="scope_missing")
        if viewer.principal is not None:
            self._renew(viewer, principal, expires_at)
            return
        instance = self._directory.find_usable(viewer.reference, principal, viewer.kind)
        channel = self._channels.get(instance.id)
        if channel is not None and len(channel.viewers) >= self._viewers_per_instance:
            raise TooManyRequests("Too many viewers of this console.", retry_after_seconds=5)
        if self._per_user[principal.user_id] >= self._viewers_per_user:
            raise TooManyRequests("Too many consoles of this account.", retry_after_seconds=5)
        if channel is None:
            channel = self._open_channel(instance)
        self._strangers -= 1
        self._per_user[principal.user_id] += 1
        self._hold(viewer, principal, expires_at)
        channel.join(viewer)

    def _renew(self, viewer: Viewer, principal: Principal, expires_at: float) -> None:
        if viewer.principal is None or principal.user_id != viewer.principal.user_id:
            raise Forbidden("A console is renewed by who opened it.")
        self._hold(viewer, principal, expires_at)
        viewer.renewed()

    def _hold(self, viewer: Viewer, principal: Principal, expires_at: float) -> None:
        if viewer.watch is not None:
            self._live.release(viewer.watch)
        viewer.principal = principal
        viewer.expires_at = expires_at
        viewer.watch = self._live.watch(
            principal, lambda: viewer.close(CloseCode.NOT_AUTHENTICATED, "the session has ended")
        )

    def _open_channel(self, instance: Instance) -> Channel:
        channel = Channel(
            instance.id,
            self._directory.endpoint(instance),
            self._random_id(),
            dial=self._dial,
            limit_bytes=lambda: min(SCROLLBACK_BYTES, SCROLLBACK_TOTAL_BYTES // len(self._channels)),
            now=self.now,
        )
        self._channels[instance.id] = channel
        return channel

    # -- what changes around them ------------------------------------------------------------------------------------

    def _on_instance_change(self, before: Instance | None, after: Instance | None) -> None:
        channel = self._channels.get((after or before).id) if after or before else None  # type: ignore[union-attr]
        if channel is None:
            return
        if after is None:
            channel.close_viewers(CloseCode.NOT_PERMITTED, "the instance was removed")
            return
        if after.suspension is not None:
            channel.close_viewers(CloseCode.SUSPENDED, "the instance is suspended")
        for viewer in tuple(channel.viewers):
            principal = viewer.principal
            if principal is not None and not principal.is_admin and principal.user_id != after.owner_id:
                viewer.close(CloseCode.NOT_PERMITTED, "the instance has another owner")
        try:
            endpoint = self._directory.endpoint(after)
        except StorageError:
            channel.close_viewers(CloseCode.AGENT_UNAVAILABLE, "the agent's secret cannot be read")
            return
        if endpoint != channel.endpoint:
            channel.move(endpoint)

    def on_state_change(self, before: AgentState, after: AgentState) -> None:
        """An agent that came back need not wait for the backoff."""
        if before.connection is not Connection.CONNECTED and after.connection is Connection.CONNECTED:
            channel = self._channels.get(after.instance_id)
            if channel is not None:
                channel.retry_now()

    # -- time --------------------------------------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Every second: deadlines, pings, viewers that do not read, channels that nobody watches."""
        now = self.now()
        for viewer in tuple(self._viewers):
            _look_after(viewer, now)
        if now - self._pinged_upstreams_at >= PING_SECONDS:
            self._pinged_upstreams_at = now
            for channel in self._channels.values():
                channel.check_upstream()
        for instance_id, channel in list(self._channels.items()):
            if not channel.viewers and now - channel.idle_since >= LINGER_SECONDS:
                del self._channels[instance_id]
                await channel.close()

    async def close(self) -> None:
        """Send every viewer away, to come back to another process or to this one's successor."""
        self._is_closing = True
        for viewer in tuple(self._viewers):
            viewer.close(CloseCode.RESTARTING, "the control plane restarts")
        try:
            async with asyncio.timeout(STOP_SECONDS):
                while self._viewers:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        except TimeoutError:
            for viewer in tuple(self._viewers):
                viewer.abort()
        for channel in list(self._channels.values()):
            await channel.close()
        self._channels.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)


def _look_after(viewer: Viewer, now: float) -> None:
    if viewer.principal is None:
        if now - viewer.opened_at >= AUTH_SECONDS:
            viewer.close(CloseCode.NOT_AUTHENTICATED, f"no valid auth within {AUTH_SECONDS:.0f} s")
            viewer.opened_at = now
        return
    left = viewer.expires_at - now
    if left <= 0:
        viewer.close(CloseCode.NOT_AUTHENTICATED, "the access token has expired")
    elif left <= WARNING_SECONDS and not viewer.is_warned:
        viewer.is_warned = True
        viewer.tell("tokenExpiring", expiresInSeconds=int(left))
    if viewer.congested_since is not None and now - viewer.congested_since >= SLOW_SECONDS:
        viewer.close(CloseCode.TOO_SLOW, "too slow")
    elif viewer.pings >= PINGS_UNANSWERED:
        viewer.abort()
    elif now - viewer.pinged_at >= PING_SECONDS:
        viewer.pinged_at = now
        viewer.ping()
