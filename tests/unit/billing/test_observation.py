"""From what the provider says to the account, whatever was stored before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.billing.accounts import Access, BillingAccount, DatedPlan
from controlplane.billing.observation import attended, observe
from controlplane.billing.records import PendingUpdate, Schedule, SchedulePhase, Subscription
from tests.billing_samples import POLICY, START, account, day, example_plans, invoice, subscribed, subscription

PLANS = example_plans()
NEW = BillingAccount("usr_1", customer_id="cus_1")


def seen(before: BillingAccount, *found: Subscription, days: float = 0) -> BillingAccount:
    return observe(before, found, plans=PLANS, policy=POLICY, now=day(days))


def test_a_first_subscription_gives_access_and_an_epoch() -> None:
    after = seen(NEW, subscription())
    assert (after.access, after.access_epoch, after.applied_epoch, after.revision) == (Access.FULL, 1, 0, 1)
    assert after.access_since == START
    assert after.plan_id == "starter"
    assert after.attention_at == START  # its effects are still to come
    assert attended(after, POLICY, START).attention_at is None


def test_the_same_again_changes_nothing_but_the_time_of_looking() -> None:
    once = attended(seen(NEW, subscription()), POLICY, START)
    again = seen(once, subscription(), days=3)
    assert again == replace(once, observed_at=day(3), revision=once.revision + 1)


def test_past_due_counts_from_its_first_unpaid_invoice() -> None:
    failing = subscription("past_due", latest_invoice=invoice(created_at=day(31)))
    after = seen(account(), failing, days=32)
    assert (after.access, after.past_due_since, after.past_due_invoice_id) == (Access.GRACE, day(31), "in_1")
    assert after.access_epoch == 1  # nothing is taken away yet
    assert after.subscription is not None
    assert after.subscription.pay_url == "https://pay.example/in_1"
    second = replace(failing, latest_invoice=invoice(id="in_2", created_at=day(61)))
    later = seen(after, second, days=62)
    assert (later.past_due_since, later.past_due_invoice_id) == (day(31), "in_1")
    assert (later.access, later.access_epoch, later.access_since) == (Access.NONE, 2, day(62))


def test_it_does_not_matter_when_it_is_noticed() -> None:
    failing = subscription("past_due", latest_invoice=invoice(created_at=day(31)))
    at_once = seen(seen(account(), failing, days=31), failing, days=45)
    late = seen(account(), failing, days=45)
    assert (late.access, late.past_due_since) == (at_once.access, at_once.past_due_since) == (Access.NONE, day(31))


def test_payment_clears_the_unpaid_time_and_gives_access_back() -> None:
    failing = subscription("past_due", latest_invoice=invoice(created_at=day(31)))
    suspended = seen(account(), failing, days=45)
    back = seen(suspended, subscription(latest_invoice=invoice(status="paid")), days=46)
    assert (back.access, back.access_epoch) == (Access.FULL, 3)
    assert (back.past_due_since, back.past_due_invoice_id) == (None, None)
    assert back.subscription is not None
    assert back.subscription.pay_url is None
    again = seen(back, replace(failing, latest_invoice=invoice(id="in_9", created_at=day(62))), days=62)
    assert (again.past_due_since, again.past_due_invoice_id) == (day(62), "in_9")


def test_past_due_without_an_unpaid_invoice_counts_from_now() -> None:
    for latest in (None, invoice(status="paid")):
        after = seen(account(), subscription("past_due", latest_invoice=latest), days=5)
        assert (after.past_due_since, after.past_due_invoice_id) == (day(5), None)


def test_what_ended_unpaid_still_counts_from_the_first_unpaid_invoice() -> None:
    failing = subscription("past_due", latest_invoice=invoice(created_at=day(31)))
    due = seen(account(), failing, days=31)
    ended = seen(due, subscription("canceled", ended_at=day(52)), days=52)
    assert (ended.access, ended.past_due_since) == (Access.NONE, day(31))
    assert seen(account(), subscription("canceled", ended_at=day(52)), days=52).past_due_since is None


def test_an_unknown_status_keeps_the_present_access() -> None:
    for access in Access:
        after = seen(account(access=access), subscription("of_tomorrow"))
        assert (after.access, after.access_epoch) == (access, 1)


def test_a_missing_subscription_decides_nothing() -> None:
    before = account()
    for found in ((), (subscription("canceled", id="sub_0"),)):
        after = seen(before, *found, days=9)
        assert after == replace(before, observed_at=day(9), revision=2)


def test_after_one_that_ended_another_may_follow() -> None:
    before = account(subscription=subscribed("canceled"), access=Access.NONE, access_epoch=2)
    after = seen(before, subscription(id="sub_2"))
    assert after.subscription is not None
    assert (after.subscription.id, after.access, after.access_epoch) == ("sub_2", Access.FULL, 3)


def test_a_price_that_left_the_file_keeps_what_was_bought() -> None:
    gone = subscription(price_id="price_gone")
    assert seen(account(), gone).plan_id == "starter"
    assert seen(NEW, gone).plan_id is None


def phases(*price_ids: str) -> Schedule:
    found = tuple(SchedulePhase((price,), day(31 * n), day(31 * (n + 1))) for n, price in enumerate(price_ids))
    return Schedule("sched_1", "active", found)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, None),
        (phases("price_starter_month"), None),
        (phases("price_starter_month", "price_starter_month"), None),
        (phases("price_starter_month", "price_builder_month"), DatedPlan("builder", "price_builder_month", day(31))),
        (phases("price_starter_month", "price_x"), DatedPlan(None, "price_x", day(31))),
        (replace(phases("price_starter_month", "price_builder_month"), status="released"), None),
    ],
)
def test_the_next_plan_is_the_first_phase_that_differs(schedule: Schedule | None, expected: DatedPlan | None) -> None:
    after = seen(NEW, subscription(schedule=schedule))
    assert after.subscription is not None
    assert after.subscription.next == expected
    assert after.plan_id == "starter"


def test_an_upgrade_that_is_not_paid_grants_nothing() -> None:
    pending = PendingUpdate(("price_studio_month",), day(1))
    after = seen(account(), subscription(pending_update=pending, latest_invoice=invoice()))
    assert after.subscription is not None
    assert after.plan_id == "starter"
    assert after.subscription.awaiting_payment == DatedPlan("studio", "price_studio_month", day(1))
    assert after.subscription.pay_url == "https://pay.example/in_1"


@pytest.mark.parametrize("status", ["canceled", "unpaid", "paused"])
def test_a_first_look_at_one_that_gives_nothing_takes_access_too(status: str) -> None:
    after = seen(NEW, subscription(status))
    assert (after.access, after.access_epoch, after.access_since) == (Access.NONE, 1, START)
    again = seen(after, subscription(status), days=1)
    assert (again.access_epoch, again.access_since) == (1, START)


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired"])
def test_one_that_was_never_paid_decides_nothing(status: str) -> None:
    after = seen(NEW, subscription(status))
    assert (after.access, after.access_epoch, after.access_since) == (Access.NONE, 0, None)
    assert seen(after, subscription("active"), days=1).access_epoch == 1
