"""What each status of a subscription gives."""

from __future__ import annotations

import pytest

from controlplane.billing.access import KNOWN_STATUSES, access_of, governing, has_ended
from controlplane.billing.accounts import Access
from tests.billing_samples import START, day, subscription


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("trialing", Access.FULL),
        ("active", Access.FULL),
        ("past_due", Access.GRACE),
        ("incomplete", Access.NONE),
        ("incomplete_expired", Access.NONE),
        ("unpaid", Access.NONE),
        ("paused", Access.NONE),
        ("canceled", Access.NONE),
        ("invented_tomorrow", None),
        ("", None),
    ],
)
def test_each_status_gives_what_it_gives(status: str, expected: Access | None) -> None:
    assert access_of(status, START, now=day(1), grace_days=10) is expected
    assert (status in KNOWN_STATUSES) is (expected is not None)


@pytest.mark.parametrize(
    ("days", "expected"), [(0, Access.GRACE), (9.999, Access.GRACE), (10, Access.NONE), (400, Access.NONE)]
)
def test_grace_ends_on_its_day(days: float, expected: Access) -> None:
    assert access_of("past_due", START, now=day(days), grace_days=10) is expected


def test_grace_without_a_known_beginning_begins_now() -> None:
    assert access_of("past_due", None, now=day(400), grace_days=10) is Access.GRACE


def test_of_several_subscriptions_the_one_that_gives_most_governs() -> None:
    order = ["canceled", "incomplete", "of_tomorrow", "past_due", "active"]
    for position, status in enumerate(order):
        some = [subscription(each, id=f"sub_{each}") for each in order[: position + 1]]
        for subscriptions in (some, some[::-1]):
            found = governing(subscriptions)
            assert found is not None
            assert found.status == status
    assert governing([]) is None


def test_of_equals_the_latest_governs() -> None:
    older, newer = subscription(id="sub_b"), subscription(id="sub_a", created_at=day(1))
    for subscriptions in ([older, newer], [newer, older]):
        assert governing(subscriptions) is newer


def test_only_what_cannot_come_back_has_ended() -> None:
    assert {status for status in KNOWN_STATUSES if has_ended(status)} == {"canceled", "incomplete_expired"}
