"""Stripe's errors in our words (https://docs.stripe.com/error-handling?lang=python). Pure."""

from __future__ import annotations

import stripe

from controlplane.errors import PaymentError, PaymentMisconfigured, PaymentRefused, PaymentUnavailable

NO_ANSWER = "The payment provider does not answer at the moment. Nothing is lost: try again in a little while."
REFUSED = "The payment provider did not accept this."
KEY_IS_SPENT = "key_is_spent"
"""Stripe keeps the first outcome under a key for a day, a failure of its own too: who tries again looks at what is
there and takes another key."""
MESSAGE_CHARACTERS = 500  # the library puts a whole body into its message when it cannot read it
DECLINED = "The payment was declined."


def translated(error: stripe.StripeError) -> PaymentError:
    """PaymentRefused where Stripe has said no; PaymentUnavailable where the outcome is unknown or it said: not now."""
    said = _said(error)
    if isinstance(error, stripe.CardError):
        return PaymentRefused(DECLINED, operator_message=said, reason=error.code or "card_declined")
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return PaymentMisconfigured(NO_ANSWER, operator_message=f"Stripe does not accept the key: {said}")
    if isinstance(error, stripe.IdempotencyError):
        return PaymentRefused(REFUSED, operator_message=said, reason="idempotency_key_reused")
    if isinstance(error, stripe.InvalidRequestError):
        return PaymentRefused(REFUSED, operator_message=said, reason=error.code or "")
    if _is_replayed(error):
        return PaymentRefused(
            REFUSED, operator_message=f"the key only replays this failure: {said}", reason=KEY_IS_SPENT
        )
    return PaymentUnavailable(NO_ANSWER, operator_message=said)


def is_missing(error: stripe.StripeError) -> bool:
    """Whether Stripe says that what the path names does not exist; a wrong URL is also a 404, but has no such code."""
    return (
        isinstance(error, stripe.InvalidRequestError) and error.http_status == 404 and error.code == "resource_missing"
    )


def _is_replayed(error: stripe.StripeError) -> bool:
    """Whether this is a failure inside Stripe that an earlier request under the same key met with."""
    return (error.http_status or 0) >= 500 and (error.headers or {}).get("Idempotent-Replayed") == "true"


def _said(error: stripe.StripeError) -> str:
    about = [f"request {error.request_id}"] if error.request_id else []
    about += [f"status {error.http_status}"] if error.http_status else []
    parameter = getattr(error, "param", None)
    about += [f"parameter {parameter}"] if parameter else []
    message = (error.user_message or type(error).__name__)[:MESSAGE_CHARACTERS]
    return message + (f" ({', '.join(about)})" if about else "")
