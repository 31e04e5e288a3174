"""What a lost or regained access means for a customer's instances: suspended, taken up again, in the end deleted.

Each is an operation under a key, so that asking twice does it once. Administrators are exempt, which is looked up at
the moment of acting. Billing lifts only suspensions that it made itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from controlplane.billing.accounts import BillingAccount
from controlplane.errors import Conflict, NotFound
from controlplane.instances import InstanceDirectory
from controlplane.models import Holding, Instance, Principal, Role
from controlplane.observability.audit import AuditTrail
from controlplane.ports import InstanceEffects, UserRepository
from controlplane.turns import Turn

logger = logging.getLogger(__name__)

REASON = "payment_overdue"
"""On a suspended instance: this one was suspended, and may be lifted, by billing."""

ACTOR = Principal(
    user_id="system:billing", email="", role=Role.ADMIN, session_id=None, api_key_id="billing", scopes=frozenset()
)


class InstanceAccess:
    def __init__(
        self,
        *,
        directory: InstanceDirectory,
        users: UserRepository,
        effects: InstanceEffects,
        audit: AuditTrail,
    ) -> None:
        self._directory = directory
        self._users = users
        self._effects = effects
        self._audit = audit

    async def is_exempt(self, user_id: str) -> bool:
        """An administrator, or an account that is gone: nothing is done to either."""
        user = await self._users.get(user_id)
        return user is None or user.is_admin

    async def apply(self, account: BillingAccount, turn: Turn, cause: str) -> int:
        """Bring every instance in line with the account's access; how many were acted on.

        What fails is raised after the others were tried, so that one odd instance does not keep the rest suspended.
        """
        if await self.is_exempt(account.user_id):
            return 0
        await self._directory.sync()
        key = _key(account)
        if not account.access.allows:
            return await self._each(account, lambda instance: instance.suspension is None, turn, cause, "suspend", key)
        if account.access_epoch < 2:
            return 0  # the first access: there is nothing that billing could have suspended
        return await self._each(account, _may_be_lifted, turn, cause, "unsuspend", key)

    async def restore(self, account: BillingAccount, turn: Turn, cause: str) -> int:
        """Ask once more for what `apply` asked for, of those that are still suspended though access is there."""
        return await self._each(account, is_suspended_by_billing, turn, cause, "restore", _key(account))

    async def suspend_strays(self, account: BillingAccount, turn: Turn, cause: str) -> int:
        """As `apply`, for what drifted: `cause` makes the operations new ones. How many were acted on."""
        return await self._each(
            account, lambda instance: instance.suspension is None, turn, cause, "suspend", f"billing:{cause}"
        )

    async def lift_strays(self, account: BillingAccount, turn: Turn, cause: str) -> int:
        return await self._each(account, is_suspended_by_billing, turn, cause, "unsuspend", f"billing:{cause}")

    async def delete_suspended(self, account: BillingAccount, turn: Turn, cause: str) -> int:
        """Those that billing suspended, and no others."""
        await self._directory.sync()
        return await self._each(account, is_suspended_by_billing, turn, cause, "delete", _key(account))

    def owners_of_suspended(self) -> set[str]:
        """Who has an instance that billing suspended, as this process knows it: a second old at most."""
        return {instance.owner_id for instance in self._directory.all() if is_suspended_by_billing(instance)}

    def of_owner(self, user_id: str) -> list[Instance]:
        return self._directory.of_owner(user_id)

    def holdings(self, user_id: str) -> AbstractAsyncContextManager[Sequence[Holding]]:
        """As `InstanceEffects.holdings`."""
        return self._effects.holdings(user_id)

    async def _each(
        self,
        account: BillingAccount,
        wanted: Callable[[Instance], bool],
        turn: Turn,
        cause: str,
        action: str,
        key: str,
    ) -> int:
        failures: list[Exception] = []
        acted = 0
        for instance in filter(wanted, self.of_owner(account.user_id)):
            await turn.check()
            if await self.is_exempt(account.user_id):
                break
            try:
                operation = await self._act(action, instance, key)
            except NotFound:
                continue  # deleted meanwhile
            except Conflict as error:
                if error.stable_code == "not_provisioned_here":
                    logger.warning("an administrator has to remove an instance", extra={"instance": instance.id})
                else:
                    failures.append(error)
                continue
            except Exception as error:
                failures.append(error)
                continue
            if operation is None:
                continue  # there is nothing to do now
            acted += 1
            await self._record(account, instance, action, cause, operation)
        if failures:
            raise failures[0]
        return acted

    async def _act(self, action: str, instance: Instance, key: str) -> str | None:
        if action == "suspend":
            return await self._effects.suspend(instance.id, REASON, key=f"{key}:suspend:{instance.id}")
        if action == "unsuspend":
            return await self._effects.unsuspend(instance.id, key=f"{key}:unsuspend:{instance.id}")
        if action == "restore":
            return await self._effects.unsuspend_again(instance.id, key=f"{key}:unsuspend:{instance.id}")
        return await self._effects.delete(instance.id, REASON, key=f"{key}:delete:{instance.id}")

    async def _record(
        self, account: BillingAccount, instance: Instance, action: str, cause: str, operation: str
    ) -> None:
        subscription = account.subscription
        await self._audit.record(
            f"billing.{action}",
            instance.id,
            actor=ACTOR,
            request_id=cause,
            address="",
            detail={
                "userId": account.user_id,
                "subscription": None if subscription is None else subscription.id,
                "status": None if subscription is None else subscription.status,
                "access": account.access.value,
                "pastDueSince": None if account.past_due_since is None else account.past_due_since.isoformat(),
                "cause": cause,
                "operation": operation,
            },
        )


def _key(account: BillingAccount) -> str:
    """The same for everything that one coming or going of access leads to."""
    return f"billing:{account.user_id}:{account.access_epoch}"


def is_suspended_by_billing(instance: Instance) -> bool:
    return instance.suspension is not None and instance.suspension.reason == REASON


def _may_be_lifted(instance: Instance) -> bool:
    """Also one that is not suspended: its suspension may be under way."""
    return instance.suspension is None or is_suspended_by_billing(instance)
