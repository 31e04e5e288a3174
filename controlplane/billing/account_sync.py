"""Reads a customer's subscriptions from the provider and stores what follows from them.

Nothing else writes what an account says about a subscription, so that it does not matter which event, order or job
asked for the read. To be called in the account's turn.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from controlplane.billing.access import KNOWN_STATUSES, has_ended
from controlplane.billing.accounts import BillingAccount
from controlplane.billing.observation import observe
from controlplane.billing.plans import PlanCatalog
from controlplane.billing.ports import BillingAccountRepository, PaymentGateway
from controlplane.billing.records import Subscription
from controlplane.billing.timeline import Policy
from controlplane.ports import Clock

logger = logging.getLogger(__name__)

PAGES = 20
PAGE_SUBSCRIPTIONS = 100


@dataclass(frozen=True, slots=True)
class Synced:
    """`is_conclusive` is False when the provider no longer knows the subscription that is stored: nothing may be done
    to anybody on the strength of this read."""

    account: BillingAccount
    subscriptions: tuple[Subscription, ...]
    is_conclusive: bool


class AccountSync:
    def __init__(
        self,
        *,
        accounts: BillingAccountRepository,
        gateway: PaymentGateway,
        plans: PlanCatalog,
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._gateway = gateway
        self._plans = plans
        self._policy = policy
        self._clock = clock

    async def refresh(self, user_id: str) -> Synced:
        """Raises PaymentError, with nothing stored, when the provider cannot be read; StaleRevision when another
        process wrote meanwhile."""
        account = await self._accounts.get(user_id) or BillingAccount(user_id)
        if account.customer_id is None:
            return Synced(account, (), is_conclusive=False)
        subscriptions = await self.read(account)
        observed = observe(account, subscriptions, plans=self._plans, policy=self._policy, now=self._clock.now())
        await self._accounts.put(observed)
        _report(observed)
        known = account.subscription
        missing = known is not None and not has_ended(known.status) and all(s.id != known.id for s in subscriptions)
        return Synced(observed, subscriptions, is_conclusive=bool(subscriptions) and not missing)

    async def read(self, account: BillingAccount) -> tuple[Subscription, ...]:
        """All of the customer's, the latest first, and the stored one even where it is not among the latest."""
        assert account.customer_id is not None
        found: list[Subscription] = []
        after: str | None = None
        for _ in range(PAGES):
            page = await self._gateway.list_subscriptions(
                customer_id=account.customer_id, after=after, limit=PAGE_SUBSCRIPTIONS
            )
            found += page.items
            after = page.next_after
            if after is None:
                break
        known = account.subscription
        if known is not None and all(each.id != known.id for each in found):
            stored = await self._gateway.retrieve_subscription(known.id)
            if stored is not None:
                found.append(stored)
        return tuple(found)

    async def adopt(self, user_id: str, customer_id: str) -> BillingAccount:
        """This user is that customer from now on. Raises Conflict (`customer_taken`) when somebody else is."""
        account = await self._accounts.get(user_id) or BillingAccount(user_id)
        if account.customer_id == customer_id:
            return account
        adopted = replace(account, customer_id=customer_id, revision=account.revision + 1)
        await self._accounts.put(adopted)
        return adopted


def _report(account: BillingAccount) -> None:
    subscription = account.subscription
    if subscription is not None and subscription.status not in KNOWN_STATUSES:
        logger.warning(
            "a subscription has a status that is not known here; its customer's access stays as it is",
            extra={"subscription": subscription.id, "status": subscription.status, "access": account.access.value},
        )
