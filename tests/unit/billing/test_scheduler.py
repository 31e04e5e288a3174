"""The scheduler does what is due, from a fresh read, and nothing on the strength of anything else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.billing.accounts import Access, BillingAccount
from controlplane.billing.instance_access import REASON
from controlplane.billing.scheduler import LEASE
from controlplane.errors import Conflict, PaymentRefused
from controlplane.models import Principal, Role, Suspension
from controlplane.storage.database import Database
from tests.billing_house import BillingHouse
from tests.billing_samples import START, day, invoice
from tests.fake_gateway import away

DAY = 86_400


async def overdue(house: BillingHouse, number: int = 1) -> None:
    """A customer with an instance whose payment failed at START, and who was told."""
    principal = await house.user(number)
    await house.instance(principal, f"server {number}")
    await house.subscribe(number)
    await house.billing.scheduler.run_once()
    present = house.gateway.subscriptions[f"sub_{number}"]
    unpaid = invoice(id=f"in_{number}", customer_id=present.customer_id, subscription_id=present.id)
    house.gateway.put(replace(present, status="past_due", latest_invoice=unpaid))
    await house.accounts.put(
        replace(await house.account(number), attention_at=START, revision=(await house.account(number)).revision + 1)
    )
    await house.billing.scheduler.run_once()


async def run_on_each_day(house: BillingHouse, days: int) -> None:
    for _ in range(days):
        house.clock.advance(DAY)
        await house.billing.scheduler.run_once()
        await house.billing.notices.run_once()


def suspended(house: BillingHouse) -> list[str]:
    return [each.name for each in house.directory.all() if each.suspension is not None]


@pytest.mark.gen_test(timeout=60)
async def test_who_does_not_pay_is_reminded_and_then_suspended(database: Database) -> None:
    house = BillingHouse(database)
    await overdue(house)
    await house.billing.notices.run_once()
    await run_on_each_day(house, 9)
    assert suspended(house) == []
    assert [each.subject for each in house.mailer.sent] == [
        "Your payment did not go through",
        "A payment is still open",
        "Your servers stop on 11 January 2126 unless you pay",
    ]
    await run_on_each_day(house, 1)
    assert suspended(house) == ["server 1"]
    assert house.mailer.sent[-1].subject == "Your servers have been stopped"
    assert (await house.account()).access is Access.NONE
    assert await house.entitlements.of("usr_1") is None
    await run_on_each_day(house, 60)
    assert len(house.mailer.sent) == 4
    assert [each.name for each in house.directory.all()] == ["server 1"]  # deletion is not switched on
    assert [action for action, _ in await house.audited()] == ["billing.suspend"]


@pytest.mark.gen_test(timeout=60)
async def test_after_the_final_warning_comes_the_deletion(database: Database) -> None:
    house = BillingHouse(database, billing_termination_enabled=True)
    await overdue(house)
    await run_on_each_day(house, 29)
    assert house.mailer.sent[-1].subject == "Last warning: your servers and their data will be deleted"
    assert house.directory.all()
    await run_on_each_day(house, 2)
    assert house.directory.all() == []
    assert house.mailer.sent[-1].subject == "Your servers have been deleted"
    assert [action for action, _ in house.effects.actions()] == ["suspend", "delete"]


@pytest.mark.gen_test(timeout=60)
async def test_a_deletion_waits_until_the_warning_has_been_out_for_its_time(database: Database) -> None:
    first = BillingHouse(database)
    await overdue(first)
    await run_on_each_day(first, 40)
    house = BillingHouse(
        database, gateway=first.gateway, clock=first.clock, billing_termination_enabled=True
    )  # the operator switches it on
    await house.directory.load()
    await house.accounts.put(
        replace(await house.account(), attention_at=START, revision=(await house.account()).revision + 1)
    )
    await run_on_each_day(house, 7)
    assert [each.subject for each in house.mailer.sent] == ["Last warning: your servers and their data will be deleted"]
    assert house.directory.all()
    await run_on_each_day(house, 2)
    assert house.directory.all() == []


@pytest.mark.gen_test(timeout=60)
async def test_a_warning_that_could_not_be_sent_holds_the_deletion(database: Database) -> None:
    house = BillingHouse(database, billing_termination_enabled=True)
    await overdue(house)
    for _ in range(40):  # nobody sends the mails
        house.clock.advance(DAY)
        await house.billing.scheduler.run_once()
    assert suspended(house) == ["server 1"]
    assert house.directory.all()


@pytest.mark.gen_test(timeout=60)
async def test_what_was_paid_in_the_meantime_is_seen_before_anything_is_done(database: Database) -> None:
    house = BillingHouse(database)
    await overdue(house)
    house.gateway.put(replace(house.gateway.subscriptions["sub_1"], status="active", latest_invoice=None))
    await run_on_each_day(house, 12)
    assert suspended(house) == []
    assert await house.notices() == ["sub_1:payment_failed:in_1"]


@pytest.mark.gen_test(timeout=60)
async def test_nothing_is_done_while_the_provider_is_away(database: Database) -> None:
    house = BillingHouse(database)
    for number in range(1, 6):
        await overdue(house, number)
    house.clock.advance(12 * DAY)
    house.gateway.is_away = True
    before = house.gateway.count("list_subscriptions")
    await house.billing.scheduler.run_once()
    assert suspended(house) == []
    assert house.gateway.count("list_subscriptions") - before == 3  # it gives up rather than ask for everybody
    house.gateway.is_away = False
    await house.billing.scheduler.run_once()
    assert len(suspended(house)) == 5


@pytest.mark.gen_test(timeout=60)
async def test_one_failed_read_spares_that_customer_alone(database: Database) -> None:
    house = BillingHouse(database)
    for number in (1, 2, 3):
        await overdue(house, number)
    house.clock.advance(12 * DAY)
    house.gateway.failures = [away()]
    await house.billing.scheduler.run_once()
    assert len(suspended(house)) == 2
    await house.billing.scheduler.run_once()
    assert len(suspended(house)) == 3


@pytest.mark.gen_test(timeout=60)
async def test_a_subscription_that_the_provider_does_not_know_suspends_nobody(database: Database) -> None:
    house = BillingHouse(database, billing_termination_enabled=True)
    await overdue(house)
    house.gateway.subscriptions.clear()  # as under the key of another Stripe account
    await run_on_each_day(house, 45)
    assert suspended(house) == []
    assert house.directory.all()
    assert (await house.account()).access is Access.GRACE


@pytest.mark.gen_test(timeout=60)
async def test_a_customer_that_is_refused_does_not_stand_before_the_others(database: Database) -> None:
    house = BillingHouse(database)
    for number in (1, 2):
        await overdue(house, number)
    house.clock.advance(12 * DAY)
    house.gateway.failures = [PaymentRefused("No.", operator_message="no such customer", reason="resource_missing")]
    await house.billing.scheduler.run_once()
    assert len(suspended(house)) == 1
    assert await house.accounts.needing_attention(house.clock.now(), limit=10) == []
    house.clock.advance(3600)
    await house.billing.scheduler.run_once()
    assert len(suspended(house)) == 2


@pytest.mark.gen_test(timeout=60)
async def test_an_administrator_is_exempt_at_the_moment_of_acting(database: Database) -> None:
    house = BillingHouse(database)
    await overdue(house)
    house.clock.advance(12 * DAY)
    await house.set_role("usr_1", Role.ADMIN)
    await house.billing.scheduler.run_once()
    assert suspended(house) == []
    assert await house.notices() == ["sub_1:payment_failed:in_1"]


@pytest.mark.gen_test(timeout=60)
async def test_one_who_becomes_an_administrator_while_acting_is_spared(database: Database) -> None:
    house = BillingHouse(database)
    await overdue(house)
    house.clock.advance(12 * DAY)
    promoted: list[asyncio.Task[None]] = []
    house.gateway.before_answer = lambda _method: promoted.append(
        asyncio.ensure_future(house.set_role("usr_1", Role.ADMIN))
    )
    read = house.accounts.put

    async def put_after_the_promotion(account: BillingAccount) -> None:
        await asyncio.gather(*promoted)
        await read(account)

    house.accounts.put = put_after_the_promotion  # type: ignore[method-assign]
    await house.billing.scheduler.run_once()
    assert promoted
    assert suspended(house) == []


@pytest.mark.gen_test(timeout=60)
async def test_a_run_stops_at_its_limit_and_the_next_goes_on(database: Database) -> None:
    house = BillingHouse(database, billing_actions_per_run=2)
    for number in range(1, 6):
        await overdue(house, number)
    house.clock.advance(12 * DAY)
    for expected in (2, 4, 5, 5):
        await house.billing.scheduler.run_once()
        assert len(suspended(house)) == expected


@pytest.mark.gen_test(timeout=60)
async def test_two_processes_do_each_thing_once(database: Database) -> None:
    first = BillingHouse(database)
    for number in range(1, 6):
        await overdue(first, number)
    second = BillingHouse(database, owner="second", gateway=first.gateway, clock=first.clock)
    await second.directory.load()
    first.clock.advance(12 * DAY)
    await asyncio.gather(*(house.billing.scheduler.run_once() for house in (first, second) for _ in range(3)))
    await first.directory.sync()
    assert len(suspended(first)) == 5
    asked = [*first.effects.asked, *second.effects.asked]
    assert len(asked) == len(set(asked)) == 5
    await asyncio.gather(*(house.billing.notices.run_once() for house in (first, second) for _ in range(3)))
    subjects = [mail.subject for house in (first, second) for mail in house.mailer.sent]
    assert subjects.count("Your servers have been stopped") == 5


@pytest.mark.gen_test(timeout=60)
async def test_another_process_that_holds_the_lease_is_not_disturbed(database: Database) -> None:
    house = BillingHouse(database)
    await overdue(house)
    house.clock.advance(12 * DAY)
    await house.leases.acquire(LEASE, "another", ttl_seconds=60)
    await house.billing.scheduler.run_once()
    assert suspended(house) == []


@pytest.mark.gen_test(timeout=60)
async def test_what_failed_is_tried_again(database: Database) -> None:
    house = BillingHouse(database)
    await overdue(house)
    house.clock.advance(12 * DAY)
    house.effects.failure = Conflict("Something else is done to it.", code="operation_in_progress")
    await house.billing.scheduler.run_once()
    account = await house.account()
    assert (account.access, account.applied_epoch, account.access_epoch) == (Access.NONE, 1, 2)
    house.effects.failure = None
    house.clock.advance(3600)
    await house.billing.scheduler.run_once()
    assert suspended(house) == ["server 1"]
    assert (await house.account()).applied_epoch == 2


@pytest.mark.gen_test(timeout=60)
async def test_billing_lifts_its_own_suspensions_alone(database: Database) -> None:
    house = BillingHouse(database)
    await overdue(house)
    other = await house.instance((await principal_of(house)), "abused")
    await house.directory.set_suspension(other.id, Suspension("abuse", START))
    await run_on_each_day(house, 12)
    house.gateway.put(replace(house.gateway.subscriptions["sub_1"], status="active", latest_invoice=None))
    await house.accounts.put(
        replace(await house.account(), attention_at=START, revision=(await house.account()).revision + 1)
    )
    await house.billing.scheduler.run_once()
    await house.billing.notices.run_once()
    assert suspended(house) == ["abused"]
    assert house.mailer.sent[-1].subject == "Your servers are available again"
    assert {each.suspension.reason for each in house.directory.all() if each.suspension} == {"abuse"} != {REASON}


async def principal_of(house: BillingHouse) -> Principal:
    user = await house.users.get("usr_1")
    assert user is not None
    return Principal(user.id, user.email, user.role, session_id="ses_1")


@pytest.mark.gen_test(timeout=60)
async def test_a_trial_is_told_of_its_end_once_each(database: Database) -> None:
    house = BillingHouse(database)
    await house.user()
    await house.subscribe(status="trialing", trial_end=day(14))
    await house.billing.scheduler.run_once()
    await run_on_each_day(house, 13)
    assert await house.notices() == [
        "sub_1:trial_ends_in_3_days:2126-01-15",
        "sub_1:trial_ends_tomorrow:2126-01-15",
    ]
    assert [each.to for each in house.mailer.sent] == ["user1@example.org"] * 2
