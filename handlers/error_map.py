"""The one table from domain errors to HTTP status, and the one envelope that errors are written in."""

from __future__ import annotations

from typing import Any

from controlplane import errors

STATUS_OF: tuple[tuple[type[errors.ControlPlaneError], int], ...] = (
    (errors.MalformedRequest, 400),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.RequestTimeout, 408),
    (errors.Conflict, 409),
    (errors.PaymentRefused, 409),
    (errors.PayloadTooLarge, 413),
    (errors.Misdirected, 421),
    (errors.InvalidInput, 422),
    (errors.TooManyRequests, 429),
    (errors.AgentProtocolError, 502),
    (errors.AgentUnreachable, 503),
    (errors.Unavailable, 503),
    (errors.PaymentUnavailable, 503),
    (errors.AgentTimeout, 504),
)
"""Most specific first; what is not listed is a fault of ours: 500."""

AGENT_RETRY_SECONDS = 5
PAYMENT_RETRY_SECONDS = 10

CODE_OF_STATUS: dict[int, tuple[str, str]] = {
    400: ("malformed_request", "The request could not be read."),
    404: ("not_found", "There is no such resource."),
    405: ("method_not_allowed", "This resource does not offer that method."),
    413: ("payload_too_large", "The request's body is too large."),
    415: ("unsupported_media_type", "A JSON body with Content-Type: application/json is needed."),
    500: ("internal_error", "Something went wrong here. The request id identifies it in our logs."),
}
"""For errors that Tornado raises before any code of ours runs."""


def status_of(error: errors.ControlPlaneError) -> int:
    if isinstance(error, errors.AgentRefused):
        return error.status
    return next((status for kind, status in STATUS_OF if isinstance(error, kind)), 500)


def retry_after_seconds(error: errors.ControlPlaneError) -> int | None:
    if isinstance(error, errors.TooManyRequests | errors.Unavailable):
        return error.retry_after_seconds
    if isinstance(error, errors.AgentUnreachable):
        return AGENT_RETRY_SECONDS
    if isinstance(error, errors.PaymentUnavailable):
        return PAYMENT_RETRY_SECONDS
    return None


def envelope(error: errors.ControlPlaneError, request_id: str) -> dict[str, Any]:
    """Our own shape, or for an agent's refusal exactly its fallback sentence and the agent's body."""
    if isinstance(error, errors.AgentRefused):
        return {"error": error.message, "details": error.body}
    return {"error": error.message, "code": error.stable_code, "details": error.details, "requestId": request_id}
