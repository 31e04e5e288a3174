"""Webhooks: what is believed, and what is refused by which code."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from controlplane.billing.stripe_webhooks import SIGNATURE_LIMIT_CHARACTERS, TOLERANCE_SECONDS, verified_event
from controlplane.errors import MalformedRequest

SECRET = "whsec_of_the_test"
NOW = 1_767_225_600
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "object": "event",
    "type": "customer.subscription.updated",
    "created": NOW,
    "data": {
        "object": {"id": "sub_1", "object": "subscription", "customer": "cus_1", "metadata": {"user_id": "usr_1"}}
    },
}


def signed(text: str, *, at: int = NOW, secret: str = SECRET) -> str:
    """Signed as Stripe's own library signs."""
    return str(stripe.WebhookSignature.generate_signature_header(text, secret, at))


def test_a_signed_event_is_read() -> None:
    text = json.dumps(EVENT)
    event = verified_event(text.encode(), signed(text), secret=SECRET, now=NOW)
    assert (event.id, event.type, event.object_id) == ("evt_1", "customer.subscription.updated", "sub_1")
    assert (event.customer_id, event.subscription_id, event.user_id) == ("cus_1", "sub_1", "usr_1")
    assert event.created_at == datetime.fromtimestamp(NOW, UTC)


def test_one_of_several_signatures_is_enough() -> None:
    """While a secret is replaced Stripe signs with both."""
    text = json.dumps(EVENT)
    other = signed(text, secret="whsec_old").partition(",")[2]
    assert verified_event(text.encode(), f"{signed(text)},{other}", secret=SECRET, now=NOW).id == "evt_1"


@pytest.mark.parametrize("skew", [-TOLERANCE_SECONDS, 0, TOLERANCE_SECONDS])
def test_clocks_may_differ_by_the_tolerance(skew: int) -> None:
    text = json.dumps(EVENT)
    assert verified_event(text.encode(), signed(text, at=NOW + skew), secret=SECRET, now=NOW).id == "evt_1"


@pytest.mark.parametrize(
    ("skew", "code"),
    [
        (-TOLERANCE_SECONDS - 1, "signature_expired"),
        (TOLERANCE_SECONDS + 1, "signature_from_future"),
        (86_400, "signature_from_future"),
        (-(10**15), "signature_expired"),
        (10**30, "signature_from_future"),
    ],
)
def test_a_signature_of_another_time_is_refused(skew: int, code: str) -> None:
    text = json.dumps(EVENT)
    assert refusal(text.encode(), signed(text, at=NOW + skew)) == code


def test_a_timestamp_cannot_be_put_in_front() -> None:
    text = json.dumps(EVENT)
    assert refusal(text.encode(), f"t={NOW},{signed(text, at=NOW - 9999)}") == "signature_invalid"
    assert refusal(text.encode(), f"{signed(text, at=NOW - 9999)},t={NOW}") == "signature_expired"


@pytest.mark.parametrize(
    ("signature", "code"),
    [
        (None, "signature_missing"),
        ("", "signature_missing"),
        ("nonsense", "signature_invalid"),
        ("t=,v1=", "signature_invalid"),
        (f"t={NOW}", "signature_invalid"),
        (f"t={NOW},v0=abc", "signature_invalid"),
        (f"t={NOW},v1=é", "signature_invalid"),
        (f"t=²,v1={'0' * 64}", "signature_invalid"),
        (f"t={NOW},v1={'0' * 64}", "signature_invalid"),
        (f"t={'9' * 5000},v1=0", "signature_invalid"),
        ("v1=0," * (SIGNATURE_LIMIT_CHARACTERS // 5 + 1), "signature_invalid"),
    ],
)
def test_a_signature_that_is_none_is_refused(signature: str | None, code: str) -> None:
    assert refusal(json.dumps(EVENT).encode(), signature) == code


def test_a_changed_body_is_refused() -> None:
    text = json.dumps(EVENT)
    assert refusal(text.replace("cus_1", "cus_2").encode(), signed(text)) == "signature_invalid"
    assert refusal(text.encode(), signed(text, secret="whsec_other")) == "signature_invalid"


def test_a_body_that_is_not_utf_8_is_refused_before_anything_else() -> None:
    assert refusal(b"\xff\xfe{}", signed("{}")) == "not_utf8"


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, '{"id": NaN}', '{"a": "\\ud800"}'])
def test_signed_bytes_that_are_no_json_are_refused(text: str) -> None:
    assert refusal(text.encode(), signed(text)) == "not_json"


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": ""},
        {"id": {"$gt": ""}},
        {"type": 7},
        {"created": "today"},
        {"created": True},
        {"created": 10**18},
        {"data": None},
        {"data": {}},
        {"data": {"object": "sub_1"}},
        {"data": {"object": {"object": "invoice", "id": "in_1", "customer": {"$ne": None}}}},
    ],
)
def test_signed_json_that_is_no_event_is_refused(change: dict[str, Any]) -> None:
    text = json.dumps({**EVENT, **change})
    assert refusal(text.encode(), signed(text)) == "not_an_event"


@pytest.mark.parametrize("text", ["null", "[]", '"event"', "7"])
def test_other_json_is_no_event(text: str) -> None:
    assert refusal(text.encode(), signed(text)) == "not_an_event"


def refusal(raw: bytes, signature: str | None) -> str:
    with pytest.raises(MalformedRequest) as refused:
        verified_event(raw, signature, secret=SECRET, now=NOW)
    return refused.value.stable_code
