"""Who has paid is not locked out for longer than minutes, whatever failed on the way, and without the provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from controlplane.billing.account_sync import AccountSync
from controlplane.billing.accounts import Access, BillingAccount
from controlplane.billing.instance_access import REASON, InstanceAccess
from controlplane.billing.notice_texts import NoticeTexts
from controlplane.billing.notices import Notices
from controlplane.billing.restoration import OWNERS_PER_RUN, Restoration
from controlplane.billing.scheduler import Scheduler
from controlplane.billing.settlement import Settlement, account_turns
from controlplane.errors import ProviderUnavailable, StorageUnavailable
from controlplane.models import Instance, Operation, OperationKind, Phase, Role, Suspension
from controlplane.observability.audit import AuditTrail
from tests.billing_samples import POLICY, example_plans, invoice, subscription
from tests.fake_billing import FakeAuditRepository, FakeBillingAccountRepository, FakeNoticeRepository
from tests.fake_gateway import FakeGateway
from tests.fakes import FakeMailer
from tests.provisioning_house import ADA, BOB, ProvisioningHouse
from tests.provisioning_house import POLICY as TRIES

MINUTE = 60.0


class Death(BaseException):
    """The process is gone."""


class House(ProvisioningHouse):
    """Billing on the operations of provisioning. `settlement` and `scheduler` are one process's; `begin_anew` is the
    process that comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts = FakeBillingAccountRepository()
        self.notices = FakeNoticeRepository()
        self.audited = FakeAuditRepository()
        self.gateway = FakeGateway()
        self.begin_anew()

    def begin_anew(self, owner: str = "first") -> None:
        turns = account_turns(self.leases, owner)
        access = InstanceAccess(
            directory=self.directory,
            users=self.users,
            effects=self.service,
            audit=AuditTrail(self.audited, self.clock, self.metrics.audit_dropped),
        )
        notices = Notices(
            notices=self.notices,
            users=self.users,
            mailer=FakeMailer(),
            texts=NoticeTexts(None),
            plans=example_plans(),
            policy=POLICY,
            clock=self.clock,
            service_url="https://portal.example",
            owner=owner,
        )
        sync = AccountSync(
            accounts=self.accounts, gateway=self.gateway, plans=example_plans(), policy=POLICY, clock=self.clock
        )
        self.settlement = Settlement(
            sync=sync,
            accounts=self.accounts,
            access=access,
            notices=notices,
            turns=turns,
            policy=POLICY,
            clock=self.clock,
        )
        self.restoration = Restoration(accounts=self.accounts, access=access, turns=turns)
        self.scheduler = Scheduler(
            accounts=self.accounts,
            restoration=self.restoration,
            settlement=self.settlement,
            turns=turns,
            leases=self.leases,
            clock=self.clock,
            owner=owner,
            actions_per_run=20,
        )

    async def locked_out(self) -> Instance:
        """Ada's, who stopped paying."""
        await self.begin()
        self.user(ADA)
        instance = await self.instance()
        self.gateway.put(subscription())
        await self.accounts.put(BillingAccount(ADA.user_id, customer_id="cus_1", revision=1))
        await self.settlement.settle(ADA.user_id, "evt_1")
        self.gateway.put(subscription("unpaid", latest_invoice=invoice()))
        await self.settlement.settle(ADA.user_id, "evt_2")
        await self.settle()
        assert self.is_suspended(instance)
        return instance

    async def pay(self) -> None:
        self.gateway.put(subscription())
        await self.settlement.settle(ADA.user_id, "evt_3")

    def is_suspended(self, instance: Instance) -> bool:
        found = self.directory.get(instance.id)
        assert found is not None
        return found.suspension is not None

    def lifts(self) -> list[Operation]:
        return [each for each in self.operations.operations.values() if each.kind is OperationKind.UNSUSPEND]

    def starts_fail(self, times: int) -> None:
        left = [times]

        async def fail(_vmid: int) -> None:
            left[0] -= 1
            if left[0] >= 0:
                raise ProviderUnavailable("Try later.", operator_message="no answer")

        self.provider.before["start"] = fail

    async def minute_passes(self) -> None:
        self.clock.advance(MINUTE)
        await self.scheduler.run_once()
        await self.settle()

    async def minutes_until_lifted(self, instance: Instance, *, at_most: int) -> int:
        for minutes in range(at_most + 1):
            if not self.is_suspended(instance):
                return minutes
            await self.minute_passes()
        raise AssertionError(f"still suspended after {at_most} minutes")


@pytest.mark.gen_test
async def test_a_lift_that_failed_a_few_times_is_taken_up_again_until_it_works() -> None:
    house = House()
    instance = await house.locked_out()
    house.starts_fail(3 * TRIES.attempts)
    await house.pay()
    await house.settle()
    assert [each.phase for each in house.lifts()] == [Phase.FAILED]
    calls = len(house.gateway.calls)
    assert await house.minutes_until_lifted(instance, at_most=15) <= 10
    assert [each.phase for each in house.lifts()] == [Phase.UNSUSPENDED]  # one operation: none was added
    assert len(house.gateway.calls) == calls
    assert [each.action for each in house.audited.entries] == [
        "billing.suspend",
        "billing.unsuspend",
        *["billing.restore"] * 3,
    ]


@pytest.mark.gen_test
async def test_a_lift_that_never_works_is_tried_ever_more_rarely_within_a_bound() -> None:
    house = House()
    instance = await house.locked_out()
    house.starts_fail(10_000)
    await house.pay()
    await house.settle()
    tries = []
    for _ in range(2):
        before = house.provider.count("start")
        for _ in range(60):
            await house.minute_passes()
        tries.append((house.provider.count("start") - before) / TRIES.attempts)
    assert 10 <= tries[1] <= 12  # one in five minutes, and the minute that it is noticed in
    assert tries[1] <= tries[0] <= 15
    assert house.is_suspended(instance)
    assert len(house.lifts()) == 1


@pytest.mark.gen_test
async def test_who_dies_before_the_lift_is_asked_for_leaves_it_to_the_next_though_the_provider_is_away() -> None:
    house = House()
    instance = await house.locked_out()
    unsuspend = house.service.unsuspend

    async def die(instance_id: str, *, key: str) -> str:
        raise Death

    house.service.unsuspend = die  # type: ignore[method-assign]
    with pytest.raises(Death):
        await house.pay()
    house.service.unsuspend = unsuspend  # type: ignore[method-assign]
    house.gateway.is_away = True
    house.leases.owners.clear()
    house.begin_anew("second")
    assert await house.minutes_until_lifted(instance, at_most=2) == 1


@pytest.mark.gen_test
async def test_who_dies_after_the_lift_was_asked_for_leaves_an_operation_that_the_next_finishes() -> None:
    house = House()
    instance = await house.locked_out()
    await house.runner.stop(limit_seconds=0)  # what is asked for now is stored, and not begun
    await house.pay()
    assert [each.phase for each in house.lifts()] == [Phase.STARTING]
    house.runner = house.second_runner
    house.begin_anew("second")
    assert await house.minutes_until_lifted(instance, at_most=2) == 1
    assert len(house.lifts()) == 1


@pytest.mark.gen_test
async def test_who_dies_between_two_tries_leaves_the_pause_and_the_operation_to_the_next() -> None:
    house = House()
    instance = await house.locked_out()
    house.starts_fail(2 * TRIES.attempts)
    await house.pay()
    await house.settle()
    await house.minute_passes()
    house.begin_anew("second")
    before = house.provider.count("start")
    await house.scheduler.run_once()
    await house.runner.until_idle()
    assert house.provider.count("start") == before  # it failed a moment ago
    assert await house.minutes_until_lifted(instance, at_most=10) <= 5
    assert len(house.lifts()) == 1


@pytest.mark.gen_test
async def test_a_lift_that_met_the_suspension_under_way_comes_right_after_it() -> None:
    house = House()
    await house.begin()
    house.user(ADA)
    instance = await house.instance()
    suspended = Suspension(REASON, house.clock.now())
    await house.directory.set_suspension(instance.id, suspended)
    await house.service.suspend(instance.id, REASON, key="still stopping it")
    account = BillingAccount(ADA.user_id, access=Access.FULL, access_epoch=3, applied_epoch=2, revision=1)
    await house.accounts.put(account)
    await house.restoration.run_once("run")
    assert house.lifts() == []
    await house.settle()
    await house.restoration.run_once("run")
    await house.settle()
    assert not house.is_suspended(instance)


@pytest.mark.gen_test
async def test_nobody_else_is_given_access() -> None:
    house = House()
    instance = await house.locked_out()
    await house.minute_passes()  # she has not paid
    assert house.is_suspended(instance)
    paid = replace(
        house.accounts.accounts[ADA.user_id], access=Access.FULL, access_epoch=5, applied_epoch=5, attention_at=None
    )
    house.accounts.accounts[ADA.user_id] = paid
    await house.directory.set_suspension(instance.id, Suspension("abuse", house.clock.now()))
    await house.minute_passes()  # an administrator suspended it
    assert house.is_suspended(instance)
    await house.directory.set_suspension(instance.id, Suspension(REASON, house.clock.now()))
    house.users.users[ADA.user_id] = replace(house.users.users[ADA.user_id], role=Role.ADMIN)
    await house.minute_passes()  # nothing is done to administrators
    assert house.is_suspended(instance)
    assert house.lifts() == []


@pytest.mark.gen_test
async def test_one_customer_whose_lift_is_refused_does_not_keep_another_locked_out() -> None:
    house = House()
    await house.begin()
    instances = []
    for principal in (ADA, BOB):
        house.user(principal)
        instance = await house.instance(principal)
        await house.directory.set_suspension(instance.id, Suspension(REASON, house.clock.now()))
        await house.accounts.put(
            BillingAccount(principal.user_id, access=Access.FULL, access_epoch=3, applied_epoch=3, revision=1)
        )
        instances.append(instance)
    elsewhere = house.instances.instances[instances[0].id]
    await house.instances.replace(
        replace(elsewhere, provider="lxd", revision=elsewhere.revision + 1), expected_revision=elsewhere.revision
    )
    await house.minute_passes()
    assert [house.is_suspended(each) for each in instances] == [True, False]


@pytest.mark.gen_test
async def test_a_database_that_is_away_is_not_asked_for_everybody() -> None:
    house = House()
    instance = await house.locked_out()
    house.starts_fail(TRIES.attempts)
    await house.pay()
    await house.settle()
    house.clock.advance(2 * MINUTE)
    house.operations.is_away = True
    with pytest.raises(StorageUnavailable):
        await house.restoration.run_once("run")
    house.operations.is_away = False
    assert await house.minutes_until_lifted(instance, at_most=2) == 1


class ManySuspended:
    def __init__(self, count: int) -> None:
        self._owners = {f"usr_{number:05}" for number in range(count)}

    def owners_of_suspended(self) -> set[str]:
        return self._owners


class Asked(FakeBillingAccountRepository):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def allowed(self, user_ids: Sequence[str]) -> set[str]:
        self.asked += user_ids
        return set()


@pytest.mark.gen_test
async def test_a_run_looks_at_so_many_and_the_next_at_the_others() -> None:
    accounts = Asked()
    many = ManySuspended(OWNERS_PER_RUN + 10)
    restoration = Restoration(accounts=accounts, access=many, turns=account_turns(House().leases, "first"))  # type: ignore[arg-type]
    for expected in (OWNERS_PER_RUN, OWNERS_PER_RUN + 10, 2 * OWNERS_PER_RUN + 10):
        await restoration.run_once("run")
        assert len(accounts.asked) == expected
    assert len(set(accounts.asked)) == OWNERS_PER_RUN + 10
