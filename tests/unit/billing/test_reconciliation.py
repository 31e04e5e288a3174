"""Differences with the provider are found both ways, set right where that is safe, and reported."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.billing.accounts import Access, Drift, DriftReport
from controlplane.billing.instance_access import REASON
from controlplane.billing.records import SubscriptionPage
from controlplane.models import Role, Suspension
from controlplane.storage.database import Database
from tests.billing_house import BillingHouse
from tests.billing_samples import START, invoice, subscription
from tests.fake_gateway import FakeGateway, away


async def customer(house: BillingHouse, number: int = 1) -> None:
    """With an instance and a plan, all in order."""
    await house.instance(await house.user(number), f"server {number}")
    await house.subscribe(number)
    await house.billing.scheduler.run_once()


async def reconciled(house: BillingHouse) -> DriftReport:
    report = await house.billing.reconciliation.reconcile()
    assert report is not None
    return report


def found(report: DriftReport) -> list[tuple[str, str, bool]]:
    return [(each.drift.value, each.subject, each.repaired) for each in report.findings]


def suspended(house: BillingHouse) -> list[str]:
    return [each.name for each in house.directory.all() if each.suspension is not None]


@pytest.mark.gen_test(timeout=60)
async def test_where_all_is_well_nothing_is_found_and_nothing_done(database: Database) -> None:
    house = BillingHouse(database)
    for number in (1, 2):
        await customer(house, number)
    report = await reconciled(house)
    assert (found(report), report.problem) == ([], None)
    assert (report.subscriptions_read, report.accounts_read) == (2, 2)
    assert house.effects.asked == []
    assert await house.billing.reconciliation.latest() == report


@pytest.mark.gen_test(timeout=60)
async def test_paid_but_suspended_is_lifted(database: Database) -> None:
    house = BillingHouse(database)
    await customer(house)
    (instance,) = house.directory.all()
    await house.directory.set_suspension(instance.id, Suspension(REASON, START))
    assert found(await reconciled(house)) == [("paid_but_suspended", instance.id, True)]
    assert suspended(house) == []
    assert found(await reconciled(house)) == []


@pytest.mark.gen_test(timeout=60)
async def test_active_but_unpaid_is_suspended(database: Database) -> None:
    house = BillingHouse(database)
    await customer(house)
    house.gateway.put(subscription("unpaid", latest_invoice=invoice()))
    await house.billing.reconciliation.reconcile()
    assert suspended(house) == ["server 1"]
    (instance,) = house.directory.all()
    await house.directory.set_suspension(instance.id, None)  # by somebody's hand
    assert found(await reconciled(house)) == [("active_but_unpaid", instance.id, True)]
    assert suspended(house) == ["server 1"]


@pytest.mark.gen_test(timeout=60)
async def test_an_administrators_suspension_and_exemption_are_no_drift(database: Database) -> None:
    house = BillingHouse(database)
    for number in (1, 2):
        await customer(house, number)
    first, second = house.directory.all()
    await house.directory.set_suspension(first.id, Suspension("abuse", START))
    await house.set_role("usr_2", Role.ADMIN)
    await house.directory.set_suspension(second.id, Suspension(REASON, START))
    assert found(await reconciled(house)) == []


@pytest.mark.gen_test(timeout=60)
async def test_a_stale_record_is_read_again(database: Database) -> None:
    house = BillingHouse(database)
    await customer(house)
    house.gateway.put(subscription(price_id="price_studio_month"))
    assert found(await reconciled(house)) == [("stale_record", "sub_1", True)]
    assert (await house.account()).plan_id == "studio"


@pytest.mark.gen_test(timeout=60)
async def test_subscriptions_of_nobody_and_missing_ones_are_only_reported(database: Database) -> None:
    house = BillingHouse(database)
    await customer(house)
    house.gateway.subscriptions.clear()
    house.gateway.put(subscription(id="sub_x", customer_id="cus_x"))
    report = await reconciled(house)
    assert found(report) == [("unknown_subscription", "sub_x", False), ("subscription_missing", "sub_1", False)]
    assert (await house.account()).access is Access.FULL
    assert house.effects.asked == []


@pytest.mark.gen_test(timeout=60)
async def test_a_missed_event_is_taken_in_and_acted_on(database: Database) -> None:
    house = BillingHouse(database)
    await customer(house)
    house.event("customer.subscription.updated", event_id="evt_old")
    house.event("customer.subscription.updated", event_id="evt_of_nobody", customer_id="cus_x")
    house.event("invented.tomorrow", event_id="evt_unknown")
    house.clock.advance(1200)
    house.event("customer.subscription.updated", event_id="evt_on_its_way")
    assert found(await reconciled(house)) == [("missed_event", "evt_old", True)]
    assert found(await reconciled(house)) == []
    house.clock.advance(1200)
    assert found(await reconciled(house)) == [("missed_event", "evt_on_its_way", True)]


@pytest.mark.gen_test(timeout=60)
async def test_a_dry_run_changes_nothing(database: Database) -> None:
    house = BillingHouse(database)
    await customer(house)
    (instance,) = house.directory.all()
    await house.directory.set_suspension(instance.id, Suspension(REASON, START))
    house.event("customer.subscription.updated")
    house.clock.advance(1200)
    before = await house.account()
    report = await house.billing.reconciliation.dry_run()
    assert report.dry_run
    assert [each.drift for each in report.findings] == [Drift.PAID_BUT_SUSPENDED, Drift.MISSED_EVENT]
    assert not any(each.repaired for each in report.findings)
    assert suspended(house) == ["server 1"]
    assert await house.account() == before
    assert await house.billing.reconciliation.latest() is None


@pytest.mark.gen_test(timeout=60)
async def test_a_read_that_fails_is_said_and_nobody_is_touched_for_it(database: Database) -> None:
    house = BillingHouse(database)
    await customer(house)
    house.gateway.failures = [away()]
    report = await reconciled(house)
    assert report.problem is not None
    assert "connection refused" in report.problem
    assert found(report) == []
    house.event("customer.subscription.updated")
    house.clock.advance(1200)
    assert found(await reconciled(house)) == [("missed_event", "evt_0", True)]  # its place was not lost


@pytest.mark.gen_test(timeout=60)
async def test_one_run_repairs_so_many_and_the_next_goes_on(database: Database) -> None:
    house = BillingHouse(database, billing_actions_per_run=2)
    for number in range(1, 6):
        await customer(house, number)
    for instance in house.directory.all():
        await house.directory.set_suspension(instance.id, Suspension(REASON, START))
    for left in (3, 1, 0):
        report = await reconciled(house)
        assert sum(not each.repaired for each in report.findings) == left
        assert len(suspended(house)) == left


class HeldGateway(FakeGateway):
    """While `is_held`, a list of subscriptions is answered when it is `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held = False
        self.reached, self.released = asyncio.Event(), asyncio.Event()

    async def list_subscriptions(
        self, *, customer_id: str | None = None, after: str | None = None, limit: int = 100
    ) -> SubscriptionPage:
        if self.is_held:
            self.reached.set()
            await self.released.wait()
        return await super().list_subscriptions(customer_id=customer_id, after=after, limit=limit)


@pytest.mark.gen_test(timeout=60)
async def test_of_two_processes_one_compares(database: Database) -> None:
    gateway = HeldGateway()
    house = BillingHouse(database, gateway=gateway)
    await customer(house)
    second = BillingHouse(database, owner="second", gateway=gateway, clock=house.clock)
    gateway.is_held = True
    first = asyncio.create_task(house.billing.reconciliation.reconcile())
    await gateway.reached.wait()
    assert await second.billing.reconciliation.reconcile() is None
    gateway.released.set()
    report = await first
    assert await house.billing.reconciliation.latest() == report


@pytest.mark.gen_test(timeout=60)
async def test_a_second_live_subscription_is_for_a_person_to_decide(database: Database) -> None:
    house = BillingHouse(database)
    await customer(house)
    house.gateway.put(replace(subscription(), id="sub_0", created_at=START.replace(year=2025)))
    assert found(await reconciled(house)) == [("second_subscription", "sub_0", False)]
