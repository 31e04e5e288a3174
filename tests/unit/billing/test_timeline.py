"""What is due on which day."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.billing.accounts import Access, BillingAccount, NoticeKind
from controlplane.billing.observation import attended, observe
from controlplane.billing.timeline import Policy, due, facts, milestones, money, next_at, notice_id
from tests.billing_samples import (
    POLICY,
    START,
    TERMINATING,
    account,
    day,
    example_plans,
    invoice,
    subscribed,
    subscription,
)

PLANS = example_plans()
TRIAL = account(subscription=subscribed("trialing", trial_end=day(14)))
OVERDUE = account(
    subscription=subscribed("past_due", pay_url="https://pay.example/in_1"),
    access=Access.GRACE,
    past_due_since=START,
    past_due_invoice_id="in_1",
)


def told_day_by_day(before: BillingAccount, policy: Policy, days: int) -> list[tuple[int, str]]:
    """On which day something new is due to an account that never pays."""
    found: list[tuple[int, str]] = []
    failing = subscription("past_due", latest_invoice=invoice())
    current = before
    for number in range(days):
        current = attended(
            observe(current, [failing], plans=PLANS, policy=policy, now=day(number)), policy, day(number)
        )
        milestone = due(current, policy, day(number))
        if milestone is not None and (not found or found[-1][1] != milestone.kind):
            found.append((number, milestone.kind.value))
    return found


def test_who_never_pays_is_reminded_suspended_warned_and_deleted() -> None:
    assert told_day_by_day(account(), TERMINATING, 40) == [
        (0, "payment_failed"),
        (3, "payment_overdue_3_days"),
        (7, "payment_overdue_7_days"),
        (10, "suspended"),
        (23, "final_warning"),
        (30, "deleted"),
    ]


def test_without_termination_it_ends_with_the_suspension() -> None:
    assert told_day_by_day(account(), POLICY, 100)[-1] == (10, "suspended")


def test_a_trial_is_told_of_its_end_twice() -> None:
    kinds = [(each.at, each.kind) for each in milestones(TRIAL, POLICY)]
    assert kinds == [(day(11), NoticeKind.TRIAL_ENDS_IN_3_DAYS), (day(13), NoticeKind.TRIAL_ENDS_TOMORROW)]
    assert due(TRIAL, POLICY, day(10.9)) is None
    assert due(TRIAL, POLICY, day(14)) is None  # over: nobody is told that it ends tomorrow
    assert next_at(TRIAL, POLICY, START) == day(11)
    assert next_at(TRIAL, POLICY, day(13)) is None


def test_a_trial_that_was_cancelled_is_told_nothing() -> None:
    assert (
        milestones(account(subscription=subscribed("trialing", trial_end=day(14), cancel_at_period_end=True)), POLICY)
        == []
    )


@pytest.mark.parametrize("status", ["active", "incomplete", "of_tomorrow"])
def test_others_are_told_nothing(status: str) -> None:
    access = Access.NONE if status == "incomplete" else Access.FULL
    since = None if status == "incomplete" else START
    assert milestones(account(subscription=subscribed(status), access=access, access_since=since), TERMINATING) == []
    assert milestones(account(subscription=None), TERMINATING) == []


def test_missed_reminders_are_not_made_up_for() -> None:
    milestone = due(OVERDUE, POLICY, day(8))
    assert milestone is not None
    assert milestone.kind is NoticeKind.PAYMENT_OVERDUE_7_DAYS


def test_an_end_that_was_wished_for_is_followed_by_its_warning_too() -> None:
    ended = account(
        subscription=subscribed("canceled", ended_at=day(31)), access=Access.NONE, access_since=day(31), access_epoch=2
    )
    assert [(each.at, each.kind.value) for each in milestones(ended, TERMINATING)] == [
        (day(31), "suspended"),
        (day(54), "final_warning"),
        (day(61), "deleted"),
    ]
    assert [each.kind.value for each in milestones(ended, POLICY)] == ["suspended"]


def test_a_notice_is_named_for_its_subscription_kind_and_invoice_or_period() -> None:
    assert notice_id(OVERDUE, NoticeKind.PAYMENT_FAILED, "in_1") == "sub_1:payment_failed:in_1"
    trial = milestones(TRIAL, POLICY)[0]
    assert notice_id(TRIAL, trial.kind, trial.reference) == "sub_1:trial_ends_in_3_days:2126-01-15"
    assert {each.reference for each in milestones(OVERDUE, TERMINATING)} == {"in_1"}


def test_facts_are_ready_to_be_read() -> None:
    told = facts(OVERDUE, TERMINATING, "Starter")
    assert told["amount"] == "9.00 EUR"
    assert told["suspension_day"] == "11 January 2126"
    assert told["deletion_day"] == "31 January 2126"
    assert told["pay_url"] == "https://pay.example/in_1"
    assert facts(OVERDUE, POLICY, "Starter")["deletion_day"] == ""
    assert facts(replace(OVERDUE, subscription=None), POLICY, "")["amount"] == ""


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [(1250, "eur", "12.50 EUR"), (5, "usd", "0.05 USD"), (-905, "eur", "-9.05 EUR"), (500, "jpy", "500 JPY")],
)
def test_money_is_written_in_its_currency(amount: int, currency: str, expected: str) -> None:
    assert money(amount, currency) == expected
