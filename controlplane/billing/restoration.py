"""Looks again at what was asked for and is not done: instances that are paid for, and suspended by billing still.

An operation that lifts a suspension can fail, and it can be refused while another is under way. By what is stored
alone: the payment provider is not asked, so that its absence keeps nobody locked out who has paid.
"""

from __future__ import annotations

import logging

from controlplane.billing.instance_access import InstanceAccess
from controlplane.billing.ports import BillingAccountRepository
from controlplane.errors import ControlPlaneError, StorageUnavailable
from controlplane.turns import Turns

logger = logging.getLogger(__name__)

OWNERS_PER_RUN = 1_000


class Restoration:
    def __init__(self, *, accounts: BillingAccountRepository, access: InstanceAccess, turns: Turns) -> None:
        self._accounts = accounts
        self._access = access
        self._turns = turns
        self._seen_until = ""

    async def run_once(self, cause: str) -> None:
        """Of more than OWNERS_PER_RUN the others follow in the next run. Raises StorageUnavailable."""
        owners = self._next_owners()
        for user_id in sorted(await self._accounts.allowed(owners) if owners else ()):
            try:
                await self._restore(user_id, cause)
            except StorageUnavailable:
                raise  # it would be the same for all
            except ControlPlaneError as error:
                logger.warning("what is paid for stays suspended", extra={"user": user_id, "why": error.message})

    def _next_owners(self) -> list[str]:
        owners = sorted(self._access.owners_of_suspended())
        rest = [each for each in owners if each > self._seen_until]
        chosen = (rest or owners)[:OWNERS_PER_RUN]
        self._seen_until = chosen[-1] if len(chosen) < len(owners) else ""
        return chosen

    async def _restore(self, user_id: str, cause: str) -> None:
        async with self._turns.of(user_id) as turn:
            account = await self._accounts.get(user_id)
            if account is not None and account.access.allows:  # it may have changed before the turn came
                await self._access.restore(account, turn, cause)
