"""What time brings due: reminders, suspensions, deletions. One process at a time, a bounded number of actions each run.

Stored moments say only whom to look at; what is done is decided from a fresh read of the provider. Where that fails
nothing is done, and after a few failures in a row the run ends: the provider is away, or our key is wrong. Before all
that, and without the provider, each run looks after those who have paid and are locked out (see `restoration`).
"""

from __future__ import annotations

import logging
from datetime import timedelta

from controlplane.billing.accounts import BillingAccount
from controlplane.billing.ports import BillingAccountRepository
from controlplane.billing.restoration import Restoration
from controlplane.billing.settlement import Settlement
from controlplane.errors import ControlPlaneError, PaymentUnavailable
from controlplane.models import Lease
from controlplane.ports import Clock, LeaseRepository
from controlplane.turns import Turns

logger = logging.getLogger(__name__)

LEASE = "billing-scheduler"
LEASE_SECONDS = 180.0
TIME_LIMIT_SECONDS = 150.0
ACCOUNTS_PER_RUN = 200
FAILURES_IN_A_ROW = 3
POSTPONED = timedelta(hours=1)


class Scheduler:
    """`actions_per_run` bounds how many instances one run suspends or deletes; an account is never done by half."""

    def __init__(
        self,
        *,
        accounts: BillingAccountRepository,
        restoration: Restoration,
        settlement: Settlement,
        turns: Turns,
        leases: LeaseRepository,
        clock: Clock,
        owner: str,
        actions_per_run: int,
    ) -> None:
        self._accounts = accounts
        self._restoration = restoration
        self._settlement = settlement
        self._turns = turns
        self._leases = leases
        self._clock = clock
        self._owner = owner
        self._actions_per_run = actions_per_run

    async def run_once(self) -> None:
        lease = await self._leases.acquire(LEASE, self._owner, ttl_seconds=LEASE_SECONDS)
        if lease is None:
            return  # another process does it
        try:
            await self._run(lease)
        finally:
            await self._leases.release(LEASE, self._owner)

    async def _run(self, lease: Lease) -> None:
        await self._restoration.run_once(f"scheduler:{lease.fence}")
        waiting = await self._accounts.needing_attention(self._clock.now(), limit=ACCOUNTS_PER_RUN)
        acted = failed_in_a_row = 0
        for position, account in enumerate(waiting):
            if acted >= self._actions_per_run:
                logger.warning(
                    "the scheduler stops at its limit; the rest follows in the next run",
                    extra={"actions": acted, "accountsLeft": len(waiting) - position},
                )
                return
            if not await self._leases.is_current(LEASE, self._owner, lease.fence):
                logger.warning("another process has taken over the billing scheduler")
                return
            try:
                acted += await self._look_at(account.user_id, f"scheduler:{lease.fence}")
                failed_in_a_row = 0
            except PaymentUnavailable as error:
                failed_in_a_row += 1
                logger.warning("an account could not be read", extra={"user": account.user_id, "why": str(error)})
                if failed_in_a_row >= FAILURES_IN_A_ROW:
                    logger.warning("the payment provider is away: nothing is done until it answers")
                    return
            except ControlPlaneError as error:
                logger.exception("an account could not be settled", extra={"user": account.user_id})
                await self._put_off(account, error)

    async def _look_at(self, user_id: str, cause: str) -> int:
        async with self._turns.of(user_id) as turn:
            settled = await self._settlement.settle_in(turn, user_id, cause)
            acted = settled.acted_on
            if settled.is_conclusive:
                acted += await self._settlement.delete_if_due(turn, settled.account, cause)
            return acted

    async def _put_off(self, account: BillingAccount, error: ControlPlaneError) -> None:
        """So that one account that fails for ever does not stand before the others."""
        try:
            async with self._turns.of(account.user_id):
                stored = await self._accounts.get(account.user_id)
                if stored is not None:
                    await self._settlement.look_again(stored, self._clock.now() + POSTPONED)
        except ControlPlaneError as second:
            logger.warning(
                "an account could not be put off", extra={"user": account.user_id, "why": f"{error}; {second}"}
            )
