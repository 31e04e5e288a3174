"""What Stripe's errors are to us: a definite no, or an open outcome."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from controlplane.billing.stripe_errors import MESSAGE_CHARACTERS, is_missing, translated
from controlplane.errors import PaymentError, PaymentMisconfigured, PaymentRefused, PaymentUnavailable

REPLAYED = {"Idempotent-Replayed": "true"}
make: Any = stripe  # the constructors of its errors have no types


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (make.CardError("declined", None, "card_declined", http_status=402), PaymentRefused, "card_declined"),
        (make.CardError("declined", None, None, http_status=402), PaymentRefused, "card_declined"),
        (make.InvalidRequestError("no", "id", "resource_missing", http_status=404), PaymentRefused, "resource_missing"),
        (make.InvalidRequestError("no", "x", None, http_status=400), PaymentRefused, ""),
        (make.IdempotencyError("reused", http_status=400), PaymentRefused, "idempotency_key_reused"),
        (make.AuthenticationError("who", http_status=401), PaymentMisconfigured, None),
        (make.PermissionError("not you", http_status=403), PaymentMisconfigured, None),
        (make.RateLimitError("slow down", http_status=429), PaymentUnavailable, None),
        (make.APIError("in progress", http_status=409), PaymentUnavailable, None),
        (make.APIError("oops", http_status=500), PaymentUnavailable, None),
        (make.APIError("oops", http_status=500, headers=REPLAYED), PaymentRefused, "key_is_spent"),
        (make.APIError("in progress", http_status=409, headers=REPLAYED), PaymentUnavailable, None),
        (make.APIConnectionError("reset"), PaymentUnavailable, None),
        (make.StripeError("what else"), PaymentUnavailable, None),
    ],
)
def test_each_error_has_one_meaning(error: stripe.StripeError, kind: type[PaymentError], reason: str | None) -> None:
    found = translated(error)
    assert type(found) is kind
    assert getattr(found, "reason", None) == reason


def test_the_customer_reads_a_sentence_and_the_operator_the_rest() -> None:
    error = make.InvalidRequestError(
        "No such price: 'price_1'",
        "items[0][price]",
        "resource_missing",
        http_status=404,
        headers={"request-id": "req_1"},
    )
    found = translated(error)
    assert "price_1" not in found.message
    assert found.operator_message == ("No such price: 'price_1' (request req_1, status 404, parameter items[0][price])")


def test_a_body_that_the_library_quotes_is_cut() -> None:
    assert len(translated(make.APIError("x" * 10_000)).operator_message) <= MESSAGE_CHARACTERS


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (make.InvalidRequestError("no", "id", "resource_missing", http_status=404), True),
        (make.InvalidRequestError("wrong url", None, None, http_status=404), False),
        (make.InvalidRequestError("no", "customer", "resource_missing", http_status=400), False),
        (make.APIError("no", http_status=404, code="resource_missing"), False),
    ],
)
def test_only_stripes_own_word_makes_something_missing(error: stripe.StripeError, missing: bool) -> None:
    assert is_missing(error) is missing
