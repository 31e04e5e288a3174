"""What changed, for those who may see it: a bounded history of events that every subscriber reads at its own pace.

No subscriber has a queue: who falls behind the history, or comes back after it, is told to take a snapshot. How events
travel (server-sent events) is the handler's business.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import orjson

from controlplane.errors import Overloaded, TooManyRequests
from controlplane.instance_views import InstanceViews
from controlplane.instances import InstanceDirectory
from controlplane.models import AgentState, Instance, Operation, Principal
from controlplane.provisioning.documents import operation_document

HISTORY_EVENTS = 20_000
HISTORY_BYTES = 32 << 20
SUBSCRIBER_LIMIT = 5_000
SUBSCRIBERS_PER_USER = 50
KEEPALIVE_SECONDS = 15.0
SLOW_SECONDS = 30.0


class EventKind(StrEnum):
    STATE = "state"
    REMOVED = "removed"
    BACKUP = "backup"
    OPERATION = "operation"
    BILLING = "billing"


class Gone(StrEnum):
    """Why a cursor cannot be used."""

    EXPIRED = "expired"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class Event:
    """`owner_id` is the customer who may see it; administrators see all. `data` is JSON."""

    number: int
    kind: EventKind
    owner_id: str
    data: bytes


@dataclass(slots=True, eq=False)
class Subscription:
    """`cursor` is the number of the next event to read."""

    principal: Principal
    cursor: int
    news: asyncio.Event
    gone: Gone | None = None


class EventHub:
    """`epoch` tells this process's numbers from another's.

    A stream says something every `keepalive_seconds`; a reader that takes nothing for `slow_seconds` is cut off.
    """

    def __init__(
        self,
        directory: InstanceDirectory,
        views: InstanceViews,
        *,
        random_id: Callable[[], str] = lambda: secrets.token_hex(6),
        history_events: int = HISTORY_EVENTS,
    ) -> None:
        self._directory = directory
        self._views = views
        self._epoch = random_id()
        self._history_events = history_events
        self._history: deque[Event] = deque()
        self._history_bytes = 0
        self._next = 1
        self._is_followed = False
        self._subscriptions: set[Subscription] = set()
        self._per_user: Tally[str] = Tally()
        self.is_closed = False
        self.keepalive_seconds = KEEPALIVE_SECONDS
        self.slow_seconds = SLOW_SECONDS
        directory.add_listener(self._on_instance_change)

    # -- publishing --------------------------------------------------------------------------------------------------

    def publish(self, kind: EventKind, owner_id: str, data: bytes) -> None:
        self._history.append(Event(self._next, kind, owner_id, data))
        self._history_bytes += len(data)
        self._next += 1
        while len(self._history) > self._history_events or self._history_bytes > HISTORY_BYTES:
            self._history_bytes -= len(self._history.popleft().data)
        for subscription in self._subscriptions:
            subscription.news.set()

    def on_state_change(self, _before: AgentState, after: AgentState) -> None:
        instance = self._directory.get(after.instance_id)
        if instance is not None:
            self._publish_state(instance)

    def on_operation_change(self, operation: Operation) -> None:
        """Tell its owner, and what the instance's state says of it now."""
        self.publish(EventKind.OPERATION, operation.owner_id, orjson.dumps(operation_document(operation)))
        instance = self._directory.get(operation.instance_id)
        if instance is not None:
            self._publish_state(instance)

    def _on_instance_change(self, before: Instance | None, after: Instance | None) -> None:
        if before is not None and (after is None or after.owner_id != before.owner_id):
            self.publish(EventKind.REMOVED, before.owner_id, orjson.dumps({"id": before.id}))
        if after is not None:
            self._publish_state(after)

    def _publish_state(self, instance: Instance) -> None:
        if self._is_followed:  # before the first subscriber there is nobody who could come back
            self.publish(EventKind.STATE, instance.owner_id, self._views.document(instance))

    # -- subscribing -------------------------------------------------------------------------------------------------

    def subscribe(self, principal: Principal, last_event_id: str | None) -> Subscription:
        """Goes on behind `last_event_id`; `gone` says when that is not possible. Raises Overloaded, TooManyRequests."""
        if self.is_closed or len(self._subscriptions) >= SUBSCRIBER_LIMIT:
            raise Overloaded("Too many event streams are open; try again.")
        if self._per_user[principal.user_id] >= SUBSCRIBERS_PER_USER:
            raise TooManyRequests("Too many event streams of this account are open.", retry_after_seconds=5)
        subscription = Subscription(principal, self._next, asyncio.Event())
        if last_event_id is not None:
            self._resume(subscription, last_event_id)
        self._is_followed = True
        self._subscriptions.add(subscription)
        self._per_user[principal.user_id] += 1
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        if subscription not in self._subscriptions:
            return
        self._subscriptions.discard(subscription)
        user_id = subscription.principal.user_id
        self._per_user[user_id] -= 1
        if not self._per_user[user_id]:
            del self._per_user[user_id]

    def _resume(self, subscription: Subscription, last_event_id: str) -> None:
        epoch, _, number = last_event_id.partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdigit() and len(number) < 16):
            subscription.gone = Gone.RESTARTED
        elif not self._next - len(self._history) <= int(number) + 1 <= self._next:
            subscription.gone = Gone.EXPIRED
        else:
            subscription.cursor = int(number) + 1

    def event_id(self, number: int) -> str:
        return f"{self._epoch}-{number}"

    def read(self, subscription: Subscription, limit: int) -> list[Event]:
        """The next events that this subscriber may see, at most `limit`; sets `gone` where some were lost."""
        oldest = self._next - len(self._history)
        if subscription.cursor < oldest:
            subscription.gone = Gone.EXPIRED
            subscription.cursor = self._next
            return []
        found: list[Event] = []
        principal = subscription.principal
        while subscription.cursor < self._next and len(found) < limit:
            event = self._history[subscription.cursor - oldest]
            subscription.cursor += 1
            if principal.is_admin or event.owner_id == principal.user_id:
                found.append(event)
        if subscription.cursor == self._next:
            subscription.news.clear()
        return found

    def close(self) -> None:
        """Wake every subscriber for its end."""
        self.is_closed = True
        for subscription in self._subscriptions:
            subscription.news.set()
