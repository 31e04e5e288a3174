"""What a customer may have, by the account as it was last observed: the provider is not asked."""

from __future__ import annotations

from controlplane.billing.plans import PlanCatalog
from controlplane.billing.ports import BillingAccountRepository
from controlplane.models import ComingEntitlement, Entitlement


class PlanEntitlements:
    """Satisfies `ports.Entitlements`."""

    def __init__(self, accounts: BillingAccountRepository, plans: PlanCatalog) -> None:
        self._accounts = accounts
        self._plans = plans

    async def of(self, user_id: str) -> Entitlement | None:
        account = await self._accounts.get(user_id)
        if account is None or account.access_epoch == 0:
            return self._plans.without_plan
        if not account.access.allows:
            return None
        plan = self._plans.get(account.plan_id)
        return None if plan is None else plan.entitlement

    async def coming(self, user_id: str) -> ComingEntitlement | None:
        account = await self._accounts.get(user_id)
        scheduled = None if account is None or account.subscription is None else account.subscription.next
        plan = None if scheduled is None else self._plans.get(scheduled.plan_id)
        if scheduled is None or plan is None:
            return None
        return ComingEntitlement(plan.entitlement, plan.name, scheduled.at)
