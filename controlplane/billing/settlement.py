"""Settles an account: read the provider, bring the instances in line, tell the customer what is due.

The one way in for events, orders and the scheduler alike, so that all of them end in the same state. Every step can be
cut off and taken up again: access changes carry an epoch, notices exist once, and an account keeps asking for attention
until all that was due is done.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controlplane.billing.account_sync import AccountSync
from controlplane.billing.accounts import BillingAccount, NoticeKind
from controlplane.billing.instance_access import InstanceAccess
from controlplane.billing.notices import Notices
from controlplane.billing.observation import attended
from controlplane.billing.ports import BillingAccountRepository
from controlplane.billing.timeline import FINAL_WARNING_DAYS, Policy, due, lapse_reference
from controlplane.errors import Overloaded
from controlplane.ports import Clock, LeaseRepository
from controlplane.turns import Turn, Turns

POSTPONED = timedelta(hours=1)
WAITERS_PER_USER = 20
WAIT_SECONDS = 15.0


def account_turns(leases: LeaseRepository, owner: str) -> Turns:
    """Orders, events and the scheduler never work on the same account side by side. Raise Overloaded."""
    return Turns(leases, owner, "billing", at_most=WAITERS_PER_USER, wait_seconds=WAIT_SECONDS, busy=_busy)


def _busy() -> Overloaded:
    return Overloaded("This account's billing is being worked on; try again.")


@dataclass(frozen=True, slots=True)
class Settled:
    """`is_conclusive` is False when nothing could be concluded from the read, and so nothing was done. `acted_on`
    counts instances that something was done to."""

    account: BillingAccount
    is_conclusive: bool
    acted_on: int = 0


class Settlement:
    def __init__(
        self,
        *,
        sync: AccountSync,
        accounts: BillingAccountRepository,
        access: InstanceAccess,
        notices: Notices,
        turns: Turns,
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._sync = sync
        self._accounts = accounts
        self._access = access
        self._notices = notices
        self._turns = turns
        self._policy = policy
        self._clock = clock

    async def settle(self, user_id: str, cause: str) -> Settled:
        """`cause` is the event, order or run that asks, for the audit trail. Deletes nothing.

        Of many that wait for one account at once the first reads for all: its read began after they asked.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with self._turns.of(user_id) as turn:
            found: Settled | None = turn.found_since(asked_at)
            if found is None:
                began_at = loop.time()
                found = await self.settle_in(turn, user_id, cause)
                turn.leave(began_at, found)
            return found

    async def settle_in(self, turn: Turn, user_id: str, cause: str) -> Settled:
        """As `settle`, in a turn that the caller holds. Raises PaymentError with nothing done."""
        synced = await self._sync.refresh(user_id)
        account = synced.account
        if not synced.is_conclusive:
            if account.attention_at is not None:
                account = await self.look_again(account, self._clock.now() + POSTPONED)
            return Settled(account, is_conclusive=False)
        is_exempt = await self._access.is_exempt(user_id)
        acted_on = await self._bring_in_line(account, turn, cause, is_exempt)
        milestone = due(account, self._policy, self._clock.now())
        if milestone is not None and milestone.is_reminder and not is_exempt:
            await self._notices.post(account, milestone.kind, milestone.reference)
        if milestone is None or milestone.kind is not NoticeKind.DELETED:  # deletion is the scheduler's alone
            account = await self._attended(account)
        return Settled(account, is_conclusive=True, acted_on=acted_on)

    async def delete_if_due(self, turn: Turn, account: BillingAccount, cause: str) -> int:
        """Right after a conclusive `settle_in` in the same turn: how many instances were deleted.

        A deletion waits until the final warning has been out for its time, however late that was sent.
        """
        now = self._clock.now()
        milestone = due(account, self._policy, now)
        if milestone is None or milestone.kind is not NoticeKind.DELETED:
            return 0
        if await self._access.is_exempt(account.user_id):
            await self._attended(account)
            return 0
        warned_at = await self._notices.sent_at(account, NoticeKind.FINAL_WARNING, milestone.reference)
        if warned_at is None:
            await self._notices.post(account, NoticeKind.FINAL_WARNING, milestone.reference)
            await self.look_again(account, now + POSTPONED)
            return 0
        if now < warned_at + timedelta(days=FINAL_WARNING_DAYS):
            await self.look_again(account, warned_at + timedelta(days=FINAL_WARNING_DAYS))
            return 0
        deleted = await self._access.delete_suspended(account, turn, cause)
        if deleted:
            await self._notices.post(account, NoticeKind.DELETED, milestone.reference)
        await self._attended(account)
        return deleted

    async def look_again(self, account: BillingAccount, at: datetime) -> BillingAccount:
        postponed = replace(account, attention_at=at, revision=account.revision + 1)
        await self._accounts.put(postponed)
        return postponed

    async def _bring_in_line(self, account: BillingAccount, turn: Turn, cause: str, is_exempt: bool) -> int:
        if account.applied_epoch == account.access_epoch or is_exempt:
            return 0
        acted_on = await self._access.apply(account, turn, cause)
        if not account.access.allows:
            await self._notices.post(account, NoticeKind.SUSPENDED, lapse_reference(account))
        elif account.access_epoch > 1:
            await self._notices.post(account, NoticeKind.RESTORED, f"epoch-{account.access_epoch}")
        return acted_on

    async def _attended(self, account: BillingAccount) -> BillingAccount:
        done = attended(account, self._policy, self._clock.now())
        await self._accounts.put(done)
        return done
