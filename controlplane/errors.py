"""The domain's error tree. Codes are stable: portals may switch on them. HTTP status lives in `handlers/error_map.py`.

ControlPlaneError
├── MalformedRequest            the bytes could not be read as what they claim to be
├── InvalidInput                readable, but a field is wrong (`details.fields`)
├── Unauthenticated             who are you
├── Forbidden                   known, but not allowed
├── NotFound                    missing, or not yours: the two are the same
├── Misdirected                 the host that was asked for is none of ours
├── Conflict
│   ├── Suspended
│   └── StaleRevision           compare-and-set lost against another writer
├── PayloadTooLarge
├── RequestTimeout              the client sent nothing for too long
├── TooManyRequests             carries retry_after_seconds
├── Unavailable                 a part of ours is overloaded or away; carries retry_after_seconds
│   ├── Overloaded              a bounded queue is full
│   └── StorageUnavailable      the database cannot be reached
├── StorageError                the database or a folder of ours is unusable in a way that a retry does not mend
│   ├── StorageLocked
│   ├── StorageDamaged
│   └── StorageTooNew
├── ConfigurationError          a setting is missing or wrong; names the setting
├── ProviderError               carries what an operator can act on; customers read `message` alone
│   ├── ProviderUnavailable     no answer, or none that can be believed: the outcome is unknown
│   └── ProviderRefused         a definite no; nothing was done
│       └── VmidTaken           a machine of somebody else has this vmid
├── PaymentError                carries what an operator can act on; customers read `message` alone
│   ├── PaymentUnavailable      no answer, or none that can be believed: the outcome is unknown
│   │   ├── PaymentBusy         too many wait for the provider already
│   │   └── PaymentMisconfigured  it does not accept our key
│   └── PaymentRefused          a definite no; carries the provider's `reason`
└── AgentError                  carries instance_id where it is known
    ├── AgentUnreachable        refused, reset, no route, not allowed
    ├── AgentTimeout            the deadline passed
    ├── AgentProtocolError      an answer that breaks HTTP or the contract; carries clause
    └── AgentRefused            a complete non-2xx answer; carries status and body
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import orjson


class ControlPlaneError(Exception):
    """Base of all errors that the control plane raises on purpose.

    `message` is a sentence for a person, `code` the stable machine name, `details` JSON-compatible or None.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.stable_code = code or self.code
        self.details = details


class MalformedRequest(ControlPlaneError):
    code = "malformed_request"


class InvalidInput(ControlPlaneError):
    """`fields` maps a field's dotted name to the list of what is wrong with it."""

    code = "validation_failed"

    def __init__(self, fields: Mapping[str, list[str]], message: str | None = None) -> None:
        named = ", ".join(sorted(fields))
        super().__init__(message or f"These fields are not valid: {named}.", details={"fields": dict(fields)})
        self.fields = fields


class Unauthenticated(ControlPlaneError):
    code = "unauthenticated"


class Forbidden(ControlPlaneError):
    code = "forbidden"


class NotFound(ControlPlaneError):
    code = "not_found"

    def __init__(self, message: str = "There is no such resource.") -> None:
        super().__init__(message)


class Misdirected(ControlPlaneError):
    code = "misdirected_request"


class Conflict(ControlPlaneError):
    code = "conflict"


class Suspended(Conflict):
    code = "suspended"


class StaleRevision(Conflict):
    code = "stale_revision"


class PayloadTooLarge(ControlPlaneError):
    code = "payload_too_large"


class RequestTimeout(ControlPlaneError):
    code = "request_timeout"


class TooManyRequests(ControlPlaneError):
    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(ControlPlaneError):
    code = "unavailable"

    def __init__(self, message: str, *, retry_after_seconds: int = 2) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Overloaded(Unavailable):
    code = "overloaded"


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"

    def __init__(self, message: str = "The database cannot be reached.", *, retry_after_seconds: int = 2) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class StorageError(ControlPlaneError):
    code = "storage_error"


class StorageLocked(StorageError):
    code = "storage_locked"


class StorageDamaged(StorageError):
    code = "storage_damaged"


class StorageTooNew(StorageError):
    code = "storage_too_new"


class ConfigurationError(ControlPlaneError):
    """`setting` is the name of the environment variable at fault."""

    code = "configuration_error"

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"{setting}: {message}")
        self.setting = setting


class ProviderError(ControlPlaneError):
    """`operator_message` says what the provider answered, and where; `message` is fit for a customer."""

    code = "provider_error"

    def __init__(self, message: str, *, operator_message: str) -> None:
        super().__init__(message)
        self.operator_message = operator_message


class ProviderUnavailable(ProviderError):
    code = "provider_unavailable"


class ProviderRefused(ProviderError):
    code = "provider_refused"


class VmidTaken(ProviderRefused):
    code = "provider_vmid_taken"


class PaymentError(ControlPlaneError):
    """`operator_message` says what the payment provider answered; `message` is fit for a customer."""

    code = "payment_error"

    def __init__(self, message: str, *, operator_message: str) -> None:
        super().__init__(message)
        self.operator_message = operator_message


class PaymentUnavailable(PaymentError):
    """Also a limit of the provider's: the same call with the same idempotency key may be made again."""

    code = "payment_unavailable"


class PaymentBusy(PaymentUnavailable):
    code = "payment_busy"


class PaymentMisconfigured(PaymentUnavailable):
    """Nothing can be read or changed until an operator mends the settings."""

    code = "payment_misconfigured"


class PaymentRefused(PaymentError):
    """`reason` is the provider's code, such as `card_declined` or `resource_missing`; empty where it gave none.

    `key_is_spent`: a failure of the provider's that it keeps under this idempotency key. Look at what is there, then
    take another key.
    """

    code = "payment_refused"

    def __init__(self, message: str, *, operator_message: str, reason: str = "") -> None:
        super().__init__(message, operator_message=operator_message)
        self.reason = reason


class AgentError(ControlPlaneError):
    code = "agent_error"


class AgentUnreachable(AgentError):
    code = "agent_unreachable"


class AgentTimeout(AgentError):
    code = "agent_timeout"


class AgentProtocolError(AgentError):
    """The agent answered, but not as docs/agent-contract.md says. `code` names the clause that was broken."""

    code = "agent_protocol_error"


class AgentRefused(AgentError):
    """A complete answer other than 2xx. `status` is the agent's, `body` its JSON or text, bounded in size."""

    code = "agent_refused"

    def __init__(self, message: str, *, status: int, body: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = body

    @classmethod
    def from_body(cls, message: str, *, status: int, body: bytes) -> AgentRefused:
        """JSON as it is, text as a string, nothing as None."""
        read: Any = None
        if body:
            try:
                read = orjson.loads(body)
            except orjson.JSONDecodeError:
                read = body.decode("utf-8", "replace")
        return cls(message, status=status, body=read)
