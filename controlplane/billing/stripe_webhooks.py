"""Whether a webhook's bytes come from Stripe, and what they tell (https://docs.stripe.com/webhooks#verify-manually).

The signature is compared by the official library; around it stand what the library lets through or fails on: bodies
that are not UTF-8, signatures that are not ASCII, timestamps of the future.
"""

from __future__ import annotations

import orjson
import stripe

from controlplane.billing import stripe_records
from controlplane.billing.records import WebhookEvent
from controlplane.errors import MalformedRequest

TOLERANCE_SECONDS = 300
SIGNATURE_LIMIT_CHARACTERS = 4096


def verified_event(raw: bytes, signature: str | None, *, secret: str, now: float) -> WebhookEvent:
    """`now` in seconds since the epoch. Raises MalformedRequest with the codes that PaymentGateway lists."""
    if not signature:
        raise MalformedRequest("The Stripe-Signature header is missing.", code="signature_missing")
    if len(signature) > SIGNATURE_LIMIT_CHARACTERS or not signature.isascii():
        raise MalformedRequest("The signature is not valid.", code="signature_invalid")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedRequest("The body is not UTF-8.", code="not_utf8") from error
    try:
        # Without a tolerance of the library's own: it knows of old timestamps only.
        stripe.WebhookSignature.verify_header(text, signature, secret, None)
    except (stripe.SignatureVerificationError, ValueError, TypeError) as error:
        raise MalformedRequest("The signature is not valid.", code="signature_invalid") from error
    _check_age(_timestamp(signature), now)
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest("The body is not JSON.", code="not_json") from error
    try:
        return stripe_records.read(stripe_records.event, data)
    except stripe_records.Unreadable as error:
        raise MalformedRequest("The body is not an event.", code="not_an_event") from error


def _timestamp(signature: str) -> int:
    """The one that the library has signed with: the first `t`."""
    return next(int(part[2:]) for part in signature.split(",") if part.startswith("t="))


def _check_age(timestamp: int, now: float) -> None:
    if timestamp < now - TOLERANCE_SECONDS:
        raise MalformedRequest("The signature is too old.", code="signature_expired")
    if timestamp > now + TOLERANCE_SECONDS:
        raise MalformedRequest("The signature's time lies in the future.", code="signature_from_future")
