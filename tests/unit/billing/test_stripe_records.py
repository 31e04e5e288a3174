"""Stripe's JSON to our records: where each thing stands since API version 2025-03-31, and what is not believed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.billing import stripe_records as records

AT = 1_767_225_600
WHEN = datetime.fromtimestamp(AT, UTC)
PRICE: dict[str, Any] = {
    "id": "price_1",
    "unit_amount": 900,
    "currency": "eur",
    "active": True,
    "recurring": {"interval": "month", "interval_count": 1},
}
INVOICE: dict[str, Any] = {
    "id": "in_1",
    "object": "invoice",
    "customer": "cus_1",
    "status": "open",
    "amount_due": 900,
    "amount_paid": 0,
    "attempt_count": 1,
    "currency": "eur",
    "created": AT,
    "next_payment_attempt": AT + 60,
    "parent": {"subscription_details": {"subscription": "sub_1", "metadata": {"user_id": "usr_1"}}},
}
SUBSCRIPTION: dict[str, Any] = {
    "id": "sub_1",
    "object": "subscription",
    "customer": {"id": "cus_1", "object": "customer"},
    "status": "active",
    "created": AT,
    "cancel_at_period_end": False,
    "items": {"data": [{"id": "si_1", "price": PRICE, "current_period_start": AT, "current_period_end": AT + 60}]},
    "latest_invoice": INVOICE,
    "metadata": {"user_id": "usr_1"},
}


def test_a_subscription_is_read_with_what_hangs_on_it() -> None:
    found = records.read(
        records.subscription,
        {
            **SUBSCRIPTION,
            "pending_update": {"expires_at": AT + 5, "subscription_items": [{"price": {"id": "price_2"}}]},
            "schedule": {
                "id": "sub_sched_1",
                "status": "active",
                "phases": [{"items": [{"price": "price_1"}], "start_date": AT, "end_date": None}],
            },
        },
    )
    assert found.customer_id == "cus_1"
    assert found.items[0].period_start == WHEN
    assert found.pending_update is not None
    assert found.pending_update.price_ids == ("price_2",)
    assert found.schedule is not None
    assert found.schedule.phases[0].ends_at is None
    assert found.latest_invoice is not None
    assert found.latest_invoice.subscription_id == "sub_1"


def test_an_unknown_status_is_kept_as_it_came() -> None:
    assert records.read(records.subscription, {**SUBSCRIPTION, "status": "hibernating"}).status == "hibernating"


@pytest.mark.parametrize(
    "change",
    [
        {"id": 7},
        {"status": None},
        {"customer": None},
        {"items": None},
        {"items": {"data": [{"id": "si_1", "price": PRICE}]}},
        {"created": 10**20},
        {"latest_invoice": "in_1"},
        {"pending_update": {"subscription_items": []}},
    ],
)
def test_a_subscription_of_another_shape_is_not_believed(change: dict[str, Any]) -> None:
    with pytest.raises(records.Unreadable, match="this is no subscription"):
        records.read(records.subscription, {**SUBSCRIPTION, **change})


@pytest.mark.parametrize("data", [None, [], "sub_1", 7])
def test_what_is_no_object_is_not_believed(data: Any) -> None:
    with pytest.raises(records.Unreadable):
        records.read(records.price, data)


def test_an_invoice_of_no_subscription_has_none() -> None:
    assert records.read(records.invoice, {**INVOICE, "parent": None}).subscription_id is None
    assert records.read(records.invoice, {**INVOICE, "status": None}).status == "draft"


def test_a_price_in_tiers_has_no_amount_of_its_own() -> None:
    assert records.read(records.price, {**PRICE, "unit_amount": None}).amount == 0
    assert records.read(records.price, {**PRICE, "recurring": None}).interval == ""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"data": [PRICE], "has_more": True}, "price_1"),
        ({"data": [PRICE], "has_more": False}, None),
        ({"data": [], "has_more": True}, None),
    ],
)
def test_a_page_says_where_the_next_begins(data: dict[str, Any], expected: str | None) -> None:
    assert records.read_page(records.price, data)[1] == expected


def event(about: dict[str, Any]) -> Any:
    return records.read(records.event, {"id": "evt_1", "type": "t", "created": AT, "data": {"object": about}})


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"object": "customer", "id": "cus_1", "metadata": {"user_id": "usr_1"}}, ("cus_1", None, None, None, "usr_1")),
        ({"object": "customer", "id": "cus_1", "deleted": True}, ("cus_1", None, None, None, None)),
        (SUBSCRIPTION, ("cus_1", "sub_1", None, None, "usr_1")),
        (INVOICE, ("cus_1", "sub_1", "in_1", None, "usr_1")),
        (
            {"object": "checkout.session", "id": "cs_1", "customer": None, "subscription": None, "invoice": None},
            (None, None, None, "cs_1", None),
        ),
        (
            {"object": "checkout.session", "id": "cs_1", "customer": "cus_1", "subscription": {"id": "sub_1"}},
            ("cus_1", "sub_1", None, "cs_1", None),
        ),
        (
            {"object": "subscription_schedule", "id": "sub_sched_1", "customer": "cus_1", "subscription": "sub_1"},
            ("cus_1", "sub_1", None, None, None),
        ),
        (
            {
                "object": "subscription_schedule",
                "id": "sub_sched_1",
                "customer": "cus_1",
                "subscription": None,
                "released_subscription": "sub_1",
            },
            ("cus_1", "sub_1", None, None, None),
        ),
        ({"object": "balance"}, (None, None, None, None, None)),
    ],
)
def test_an_event_names_whom_it_is_about(about: dict[str, Any], expected: tuple[str | None, ...]) -> None:
    found = event(about)
    assert (found.customer_id, found.subscription_id, found.invoice_id, found.checkout_id, found.user_id) == expected
    assert found.object_id == about.get("id", "")


def line(start: int, amount: int, *, proration: bool) -> dict[str, Any]:
    return {
        "description": "a line",
        "amount": amount,
        "period": {"start": start, "end": start + 60},
        "parent": {"subscription_item_details": {"proration": proration}},
    }


def test_a_preview_says_what_is_charged_at_once_and_for_which_moment() -> None:
    data = {
        "currency": "eur",
        "created": AT + 3,
        "amount_due": 1200,
        "parent": {"subscription_details": {"subscription_proration_date": AT}},
        "lines": {"data": [line(AT, -300, proration=True), line(AT, 1500, proration=True)]},
    }
    found = records.read(records.preview, data)
    assert (found.amount_due, found.prorated_at) == (1200, WHEN)
    assert [one.amount for one in found.lines] == [-300, 1500]
    later = {**data, "parent": None, "lines": {"data": [line(AT + 9999, 1500, proration=False)]}}
    assert records.read(records.preview, later).amount_due == 0
