"""What billing keeps, on a real server over the wire: who is first of many, and what survives whom."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.billing.accounts import (
    Access,
    BillingAccount,
    DatedPlan,
    Drift,
    DriftReport,
    Finding,
    InboxState,
    OrderKind,
)
from controlplane.errors import Conflict, StaleRevision
from controlplane.storage.billing_accounts import MongoBillingAccountRepository
from controlplane.storage.billing_drift import MongoDriftRepository
from controlplane.storage.billing_inbox import MongoInboxRepository
from controlplane.storage.billing_notices import MongoNoticeRepository
from controlplane.storage.billing_orders import MongoOrderRepository
from controlplane.storage.database import Database
from tests.billing_samples import START, account, day, entry, notice, subscribed
from tests.contract.storage import processes


@pytest.fixture
def accounts(database: Database) -> MongoBillingAccountRepository:
    return MongoBillingAccountRepository(database)


@pytest.fixture
def orders(database: Database) -> MongoOrderRepository:
    return MongoOrderRepository(database)


@pytest.fixture
def inbox(database: Database) -> MongoInboxRepository:
    return MongoInboxRepository(database)


@pytest.fixture
def notices(database: Database) -> MongoNoticeRepository:
    return MongoNoticeRepository(database)


# -- accounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_an_account_comes_back_as_it_was(accounts: MongoBillingAccountRepository) -> None:
    empty = BillingAccount("usr_2", revision=1)
    full = account(
        subscription=subscribed(
            "past_due",
            trial_end=day(1),
            ended_at=day(2),
            schedule_id="sched_1",
            next=DatedPlan("starter", "price_starter_month", day(31)),
            awaiting_payment=DatedPlan(None, "price_x", day(1)),
            pay_url="https://pay.example/in_1",
        ),
        access=Access.GRACE,
        past_due_since=day(3),
        past_due_invoice_id="in_1",
        attention_at=day(4),
    )
    for each in (empty, full):
        await accounts.put(each)
        assert await accounts.get(each.user_id) == each
    assert await accounts.find_by_customer("cus_1") == full
    assert await accounts.find_by_customer("cus_2") is None
    assert await accounts.get("usr_3") is None


@pytest.mark.gen_test
async def test_of_many_writers_of_one_revision_one_wins(accounts: MongoBillingAccountRepository) -> None:
    for revision in (1, 2):
        tries = [accounts.put(account(revision=revision, access_epoch=number)) for number in range(20)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert all(result is None or isinstance(result, StaleRevision) for result in results)
        stored = await accounts.get("usr_1")
        assert stored is not None
        assert results[stored.access_epoch] is None


@pytest.mark.gen_test
async def test_a_customer_belongs_to_one_account(accounts: MongoBillingAccountRepository) -> None:
    await accounts.put(account())
    with pytest.raises(Conflict) as refused:
        await accounts.put(account(user_id="usr_2"))
    assert refused.value.stable_code == "customer_taken"
    await accounts.put(account(user_id="usr_2", customer_id=None))
    await accounts.put(account(user_id="usr_3", customer_id=None))


@pytest.mark.gen_test
async def test_accounts_that_need_attention_come_longest_waiting_first(
    accounts: MongoBillingAccountRepository,
) -> None:
    for number, at in enumerate((day(3), day(1), None, day(9))):
        await accounts.put(account(user_id=f"usr_{number}", customer_id=None, attention_at=at))
    assert [each.user_id for each in await accounts.needing_attention(day(5), limit=10)] == ["usr_1", "usr_0"]
    assert [each.user_id for each in await accounts.needing_attention(day(5), limit=1)] == ["usr_1"]
    assert [each.user_id for each in await accounts.page(limit=2, after="usr_0")] == ["usr_1", "usr_2"]


@pytest.mark.gen_test
async def test_of_many_accounts_those_with_access_are_told(accounts: MongoBillingAccountRepository) -> None:
    for number, access in enumerate((*Access, Access.FULL)):
        await accounts.put(account(user_id=f"usr_{number}", customer_id=None, access=access))
    assert list(Access) == [Access.FULL, Access.GRACE, Access.NONE]
    assert await accounts.allowed(["usr_0", "usr_1", "usr_2", "usr_9"]) == {"usr_0", "usr_1"}
    assert await accounts.allowed([]) == set()


@pytest.mark.gen_test
async def test_changes_are_told_since_a_moment_of_the_server(accounts: MongoBillingAccountRepository) -> None:
    nothing, since = await accounts.changed_since(None)
    assert nothing == []
    await accounts.put(account())
    changed, until = await accounts.changed_since(since)
    assert [each.user_id for each in changed] == ["usr_1"]
    assert until >= since
    assert (await accounts.changed_since(until + timedelta(hours=1)))[0] == []


# -- orders ------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_the_same_order_many_times_is_one_order(orders: MongoOrderRepository) -> None:
    same = await asyncio.gather(
        *(
            orders.open("usr_1", OrderKind.CHECKOUT, "price_a", key=f"key-{n}", now=START, not_before=day(-1))
            for n in range(20)
        )
    )
    assert len({order.key for order in same}) == 1
    await orders.set_result(same[0], "cs_1")
    again = await orders.open("usr_1", OrderKind.CHECKOUT, "price_a", key="late", now=day(0.5), not_before=day(-0.5))
    assert again == replace(same[0], result="cs_1")


@pytest.mark.gen_test
async def test_another_target_another_day_or_a_closed_order_is_a_new_one(orders: MongoOrderRepository) -> None:
    async def order(target: str, key: str, not_before: float = -1) -> str:
        made = await orders.open("usr_1", OrderKind.UPGRADE, target, key=key, now=START, not_before=day(not_before))
        return made.key

    assert await order("price_a", "first") == "first"
    assert await order("price_b", "second") == "second"
    assert await order("price_b", "third", not_before=0.5) == "third"
    held = await orders.get("usr_1", OrderKind.UPGRADE)
    assert held is not None
    await orders.close(replace(held, key="first"))  # of an order whose place was taken
    assert await order("price_b", "fourth") == "third"
    await orders.close(held)
    assert await orders.get("usr_1", OrderKind.UPGRADE) is None
    assert await order("price_b", "fifth") == "fifth"
    assert await orders.get("usr_2", OrderKind.UPGRADE) is None


# -- the inbox ---------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_an_event_is_received_once_and_comes_back_as_it_was(inbox: MongoInboxRepository) -> None:
    event = entry(type="$customer.x", checkout_id="cs_1", invoice_id="in_1", user_id="$$ROOT")
    results = await asyncio.gather(*(inbox.receive(event) for _ in range(20)))
    assert sorted(results) == [False] * 19 + [True]
    assert await inbox.get("evt_1") == event
    assert await inbox.get("evt_2") is None
    assert await inbox.known(["evt_0", "evt_1", *(f"evt_x{n}" for n in range(100))]) == {"evt_1"}


@pytest.mark.gen_test
async def test_one_of_many_takes_an_event_up_and_it_is_done_once(inbox: MongoInboxRepository) -> None:
    await inbox.receive(entry())
    claims = await asyncio.gather(*(inbox.claim("evt_1", f"owner-{n}", lease_seconds=30) for n in range(20)))
    (owner,) = [f"owner-{n}" for n, claim in enumerate(claims) if claim is not None]
    await inbox.finish("evt_1", "somebody else", "no")
    stored = await inbox.get("evt_1")
    assert stored is not None
    assert (stored.state, stored.attempts) == (InboxState.PROCESSING, 1)
    await inbox.finish("evt_1", owner, "synced")
    stored = await inbox.get("evt_1")
    assert stored is not None
    assert (stored.state, stored.outcome) == (InboxState.DONE, "synced")
    assert await inbox.claim("evt_1", "late", lease_seconds=30) is None


@pytest.mark.gen_test
async def test_an_event_whose_holder_died_passes_on(inbox: MongoInboxRepository) -> None:
    await inbox.receive(entry())
    assert await inbox.claim("evt_1", "dead", lease_seconds=0.1) is not None
    taken = await processes.eventually(lambda: inbox.claim("evt_1", "heir", lease_seconds=30))
    assert taken.attempts == 2
    await inbox.finish("evt_1", "dead", "too late")
    stored = await inbox.get("evt_1")
    assert stored is not None
    assert stored.state is InboxState.PROCESSING


@pytest.mark.gen_test
async def test_what_nobody_works_on_is_listed(inbox: MongoInboxRepository) -> None:
    for number in range(5):
        await inbox.receive(entry(f"evt_{number}", received_at=day(-number)))
    assert await inbox.left_over(idle_seconds=60, limit=10) == []  # their delivery is still under way
    assert await inbox.left_over(idle_seconds=0, limit=2) == ["evt_4", "evt_3"]
    await inbox.claim("evt_0", "me", lease_seconds=60)
    await inbox.claim("evt_1", "me", lease_seconds=60)
    await inbox.fail("evt_1", "me", "$no", retry_seconds=0)
    await inbox.claim("evt_2", "me", lease_seconds=60)
    await inbox.fail("evt_2", "me", "no", retry_seconds=60)
    await inbox.claim("evt_3", "me", lease_seconds=60)
    await inbox.finish("evt_3", "me", "done")
    assert await inbox.left_over(idle_seconds=60, limit=10) == ["evt_1"]
    failed = await inbox.get("evt_1")
    assert failed is not None
    assert (failed.state, failed.outcome) == (InboxState.FAILED, "$no")
    assert await inbox.claim("evt_2", "a new delivery", lease_seconds=60) is not None


# -- notices -----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_notice_exists_once_and_is_sent_by_one(notices: MongoNoticeRepository) -> None:
    added = await asyncio.gather(*(notices.add(notice()) for _ in range(20)))
    assert sum(added) == 1
    claims = await asyncio.gather(*(notices.claim(notice().id, f"owner-{n}", lease_seconds=30) for n in range(20)))
    (owner,) = [f"owner-{n}" for n, claim in enumerate(claims) if claim is not None]
    assert await notices.unsent(limit=10) == []
    await notices.mark_sent(notice().id, "somebody else", START)
    stored = await notices.get(notice().id)
    assert stored == notice(attempts=1)
    await notices.mark_sent(notice().id, owner, START)
    assert await notices.claim(notice().id, "late", lease_seconds=30) is None
    assert await notices.add(notice()) is False


@pytest.mark.gen_test
async def test_a_notice_that_was_not_sent_is_taken_up_again(notices: MongoNoticeRepository) -> None:
    await notices.add(notice("a", created_at=day(1)))
    await notices.add(notice("b", created_at=day(0)))
    assert await notices.unsent(limit=10) == ["b", "a"]
    await notices.claim("a", "dead", lease_seconds=0.1)
    await notices.claim("b", "me", lease_seconds=60)
    await notices.give_back("b", "me", retry_seconds=60)
    assert (await processes.eventually(lambda: notices.claim("a", "heir", lease_seconds=60))).attempts == 2
    assert await notices.unsent(limit=10) == []
    await notices.give_back("a", "heir", retry_seconds=0)
    assert await notices.unsent(limit=10) == ["a"]


# -- drift -------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_the_latest_report_is_kept_and_dry_runs_are_not_it(database: Database) -> None:
    drift = MongoDriftRepository(database)
    assert await drift.latest() is None
    finding = Finding(Drift.PAID_BUT_SUSPENDED, "gs_1", "usr_1", "words", repaired=True)
    first = DriftReport("one", day(1), day(1), False, 3, 2, 1, [finding], 7, None)
    await drift.add(first)
    await drift.add(replace(first, id="dry", started_at=day(3), dry_run=True))
    assert await drift.latest() == first
    second = replace(first, id="two", started_at=day(2), problem="Stripe is away")
    await drift.add(second)
    assert await drift.latest() == second
    assert await drift.events_read_until() is None
    await drift.set_events_read_until(day(2))
    await drift.set_events_read_until(day(1))
    assert await drift.events_read_until() == day(2)
