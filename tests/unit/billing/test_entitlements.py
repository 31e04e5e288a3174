"""What a customer may have follows from the account as it was last observed."""

from __future__ import annotations

import pytest

from controlplane.billing.accounts import Access, BillingAccount, DatedPlan
from controlplane.billing.entitlements import PlanEntitlements
from controlplane.billing.plans import PlanCatalog
from controlplane.models import ComingEntitlement, Entitlement
from controlplane.storage.billing_accounts import MongoBillingAccountRepository
from controlplane.storage.database import Database
from tests.billing_samples import account, day, example_plans, subscribed

FREE = Entitlement({}, memory_mib=1, backups=0, ide=False)
PLANS = PlanCatalog(example_plans().plans, FREE)
STARTER = PLANS.plans[0].entitlement


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, FREE),
        (BillingAccount("usr_1", customer_id="cus_1", revision=1), FREE),
        (account(), STARTER),
        (account(access=Access.GRACE), STARTER),
        (account(access=Access.NONE, access_epoch=2), None),
        (account(subscription=subscribed(plan_id=None)), None),
        (account(subscription=subscribed(plan_id="gone")), None),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_an_account_gives_what_its_plan_says(
    database: Database, stored: BillingAccount | None, expected: Entitlement | None
) -> None:
    accounts = MongoBillingAccountRepository(database)
    if stored is not None:
        await accounts.put(stored)
    assert await PlanEntitlements(accounts, PLANS).of("usr_1") == expected
    assert await PlanEntitlements(accounts, example_plans()).of("usr_2") is None


@pytest.mark.parametrize(
    ("scheduled", "expected"),
    [
        (None, None),
        (DatedPlan("starter", "price_starter_month", day(31)), ComingEntitlement(STARTER, "Starter", day(31))),
        (DatedPlan(None, "price_of_no_plan", day(31)), None),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_a_change_that_is_ordered_says_what_will_be(
    database: Database, scheduled: DatedPlan | None, expected: ComingEntitlement | None
) -> None:
    accounts = MongoBillingAccountRepository(database)
    entitlements = PlanEntitlements(accounts, PLANS)
    assert await entitlements.coming("usr_1") is None
    await accounts.put(account(subscription=subscribed(plan_id="studio", next=scheduled)))
    assert await entitlements.coming("usr_1") == expected
    assert await entitlements.of("usr_1") == PLANS.plans[2].entitlement
