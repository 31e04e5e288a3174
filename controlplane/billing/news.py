"""Tells changes of billing accounts, whichever process made them, to those who follow events and to listeners."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from datetime import datetime

import orjson

from controlplane.billing.ports import BillingAccountRepository
from controlplane.events import EventHub, EventKind

REMEMBERED = 10_000


class BillingNews:
    def __init__(self, accounts: BillingAccountRepository, events: EventHub) -> None:
        self._accounts = accounts
        self._events = events
        self._since: datetime | None = None
        self._told: dict[str, int] = {}
        self._listeners: list[Callable[[Set[str]], Awaitable[None]]] = []

    def add_listener(self, listener: Callable[[Set[str]], Awaitable[None]]) -> None:
        """Called with the users whose accounts changed. What it raises ends the run; the next one calls it again."""
        self._listeners.append(listener)

    async def run_once(self) -> None:
        """An event for each account that was written since the last time. Raises StorageUnavailable."""
        changed, until = await self._accounts.changed_since(self._since)
        news = [account for account in changed if self._told.get(account.user_id, 0) < account.revision]
        if news:
            user_ids = {account.user_id for account in news}
            for listener in self._listeners:
                await listener(user_ids)
        for account in news:
            self._told.pop(account.user_id, None)
            self._told[account.user_id] = account.revision
            if len(self._told) > REMEMBERED:
                del self._told[next(iter(self._told))]
            subscription = account.subscription
            told = {
                "access": account.access.value,
                "planId": account.plan_id,
                "status": None if subscription is None else subscription.status,
                "revision": account.revision,
            }
            self._events.publish(EventKind.BILLING, account.user_id, orjson.dumps(told))
        self._since = until
