"""Tells changes of billing accounts to those who follow events, whichever process made them."""

from __future__ import annotations

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

    async def run_once(self) -> None:
        """An event for each account that was written since the last time."""
        changed, self._since = await self._accounts.changed_since(self._since)
        for account in changed:
            if self._told.get(account.user_id, 0) >= account.revision:
                continue
            self._told.pop(account.user_id, None)
            self._told[account.user_id] = account.revision
            if len(self._told) > REMEMBERED:
                del self._told[next(iter(self._told))]
            subscription = account.subscription
            news = {
                "access": account.access.value,
                "planId": account.plan_id,
                "status": None if subscription is None else subscription.status,
                "revision": account.revision,
            }
            self._events.publish(EventKind.BILLING, account.user_id, orjson.dumps(news))
