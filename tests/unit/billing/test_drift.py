"""Every way in which our records and the provider's can differ is found, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.billing import drift
from controlplane.billing.accounts import Access, BillingAccount, Drift
from controlplane.billing.instance_access import REASON
from controlplane.billing.records import Subscription
from controlplane.models import Instance, InstanceKind, Suspension
from tests.billing_samples import START, account, example_plans, subscribed, subscription

PLANS = example_plans()
ENDED = account(subscription=subscribed("canceled"), access=Access.NONE, access_epoch=2, applied_epoch=2)


@pytest.mark.parametrize(
    ("stored", "found", "expected"),
    [
        (account(), subscription(), []),
        (ENDED, subscription("canceled"), []),
        (account(), subscription("canceled", id="sub_0"), []),
        (account(), subscription("past_due"), [Drift.STALE_RECORD]),
        (account(), subscription(price_id="price_studio_month"), [Drift.STALE_RECORD]),
        (account(), subscription("canceled"), [Drift.STALE_RECORD]),
        (account(subscription=None), subscription(), [Drift.STALE_RECORD]),
        (ENDED, subscription(id="sub_2"), [Drift.STALE_RECORD]),
        (account(), subscription(id="sub_2"), [Drift.SECOND_SUBSCRIPTION]),
        (account(), subscription("of_tomorrow"), [Drift.UNKNOWN_STATUS, Drift.STALE_RECORD]),
        (
            account(subscription=subscribed(price_id="price_x")),
            subscription(price_id="price_x"),
            [Drift.UNKNOWN_PRICE],
        ),
    ],
)
def test_a_subscription_beside_its_account(stored: BillingAccount, found: Subscription, expected: list[Drift]) -> None:
    assert [each.drift for each in drift.of_subscription(stored, found, PLANS)] == expected


def test_a_subscription_of_nobody() -> None:
    found = drift.of_unknown_customer(subscription())
    assert found is not None
    assert (found.drift, found.subject, found.user_id) == (Drift.UNKNOWN_SUBSCRIPTION, "sub_1", None)
    assert drift.of_unknown_customer(subscription("canceled")) is None


def test_a_stored_subscription_that_is_gone() -> None:
    found = drift.of_missing(account())
    assert found is not None
    assert found.drift is Drift.SUBSCRIPTION_MISSING
    assert drift.of_missing(ENDED) is None
    assert drift.of_missing(account(subscription=None)) is None


def instance(reason: str | None) -> Instance:
    suspension = None if reason is None else Suspension(reason, START)
    return Instance(
        f"gs_{reason}", InstanceKind.GAME, 100, "mine", "usr_1", "127.0.0.1", 9, b"", datetime(2026, 1, 1, tzinfo=UTC),
        suspension=suspension,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "reason", "expected"),
    [
        (account(), None, []),
        (account(), "abuse", []),
        (account(), REASON, [Drift.PAID_BUT_SUSPENDED]),
        (account(access=Access.GRACE), REASON, [Drift.PAID_BUT_SUSPENDED]),
        (ENDED, REASON, []),
        (ENDED, "abuse", []),
        (ENDED, None, [Drift.ACTIVE_BUT_UNPAID]),
        (account(access_epoch=2), REASON, []),  # its effects are under way
        (account(access=Access.NONE, access_epoch=0, applied_epoch=0), None, []),  # never had a plan
    ],
)
def test_instances_beside_their_account(stored: BillingAccount, reason: str | None, expected: list[Drift]) -> None:
    assert [each.drift for each in drift.of_instances(stored, [instance(reason)])] == expected
