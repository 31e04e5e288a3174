"""What Stripe refuses, in Stripe's envelope (https://docs.stripe.com/api/errors)."""

from __future__ import annotations

from typing import Any

DOCUMENTED_CODES = frozenset(
    {
        "card_declined",
        "idempotency_key_in_use",
        "parameter_invalid_empty",
        "parameter_invalid_integer",
        "parameter_missing",
        "parameter_unknown",
        "rate_limit",
        "resource_missing",
    }
)


class StripeFault(Exception):
    """Answered as `{"error": {…}}` with `status`. `kind` is Stripe's `type`."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        decline_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.decline_code = decline_code

    def envelope(self, request_id: str) -> dict[str, Any]:
        error: dict[str, Any] = {"message": self.message, "type": self.kind}
        if self.code is not None:
            error["code"] = self.code
            if self.code in DOCUMENTED_CODES:
                error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.decline_code is not None:
            error["decline_code"] = self.decline_code
        if self.param is not None:
            error["param"] = self.param
        error["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{request_id}"
        return {"error": error}


def missing(kind: str, object_id: str, param: str) -> StripeFault:
    return StripeFault(f"No such {kind}: '{object_id}'", status=404, code="resource_missing", param=param)


def declined() -> StripeFault:
    return StripeFault(
        "Your card was declined.", status=402, kind="card_error", code="card_declined", decline_code="generic_decline"
    )
