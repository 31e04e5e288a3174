"""What is stored about billing: the account of each customer, orders under way, events received, notices, drift.

No I/O. Stripe is the truth about money; an account holds what it said when it was last asked, and what we made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Access(StrEnum):
    """What a customer may use now. `grace`: all of it still, though a payment failed."""

    FULL = "full"
    GRACE = "grace"
    NONE = "none"

    @property
    def allows(self) -> bool:
        return self is not Access.NONE


@dataclass(frozen=True, slots=True)
class DatedPlan:
    """A plan from a moment on."""

    plan_id: str | None
    price_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The governing subscription as it was last observed.

    `plan_id` is None for a price that no plan has. `next` is the scheduled change, `awaiting_payment` the plan that an
    upgrade grants once it is paid, by the moment it lapses. `pay_url` is where the open invoice is paid.
    """

    id: str
    status: str
    plan_id: str | None
    price_id: str
    item_id: str
    interval: str
    amount: int
    currency: str
    period_end: datetime
    cancel_at_period_end: bool = False
    ended_at: datetime | None = None
    trial_end: datetime | None = None
    schedule_id: str | None = None
    next: DatedPlan | None = None
    awaiting_payment: DatedPlan | None = None
    pay_url: str | None = None


@dataclass(frozen=True, slots=True)
class BillingAccount:
    """One customer's. `revision` guards compare-and-set.

    `access_epoch` grows whenever access comes or goes, and keys what is then done to instances; `applied_epoch`
    follows once all of it was asked for. `past_due_since` and `past_due_invoice_id` stay those of the first unpaid
    invoice until it is paid. `attention_at` is when the scheduler has to look next.
    """

    user_id: str
    customer_id: str | None = None
    subscription: Subscribed | None = None
    access: Access = Access.NONE
    access_since: datetime | None = None
    access_epoch: int = 0
    applied_epoch: int = 0
    past_due_since: datetime | None = None
    past_due_invoice_id: str | None = None
    observed_at: datetime | None = None
    attention_at: datetime | None = None
    revision: int = 0

    @property
    def plan_id(self) -> str | None:
        return None if self.subscription is None else self.subscription.plan_id


class OrderKind(StrEnum):
    """What a customer orders; each is one change at the provider."""

    CUSTOMER = "customer"
    CHECKOUT = "checkout"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    CANCEL = "cancel"
    RESUME = "resume"
    RELEASE = "release"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class Order:
    """One open order of a kind for each user. `target` says what is ordered: the same target is the same order.

    `key` is the idempotency key that its call carries, stored before the call. `result` is what came of it (a
    checkout's id), None while nobody knows.
    """

    user_id: str
    kind: OrderKind
    target: str
    key: str
    created_at: datetime
    result: str | None = None


class InboxState(StrEnum):
    RECEIVED = "received"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """One event of the provider. `source` is `webhook`, or `reconciliation` for one that was missed.

    `attempts` counts how often it was taken up; `lease_until` ends the right of the process that does so now.
    """

    id: str
    type: str
    created_at: datetime
    received_at: datetime
    source: str
    object_id: str
    customer_id: str | None = None
    subscription_id: str | None = None
    invoice_id: str | None = None
    checkout_id: str | None = None
    user_id: str | None = None
    state: InboxState = InboxState.RECEIVED
    attempts: int = 0
    lease_until: datetime | None = None
    outcome: str | None = None


class NoticeKind(StrEnum):
    """What customers are told by mail; each has its texts in a folder."""

    TRIAL_ENDS_IN_3_DAYS = "trial_ends_in_3_days"
    TRIAL_ENDS_TOMORROW = "trial_ends_tomorrow"
    PAYMENT_FAILED = "payment_failed"
    PAYMENT_OVERDUE_3_DAYS = "payment_overdue_3_days"
    PAYMENT_OVERDUE_7_DAYS = "payment_overdue_7_days"
    PAYMENT_ACTION_REQUIRED = "payment_action_required"
    SUSPENDED = "suspended"
    RESTORED = "restored"
    FINAL_WARNING = "final_warning"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Notice:
    """`id` is `subscription:kind:invoice-or-period`: it exists once. `facts` fill the text."""

    id: str
    user_id: str
    kind: NoticeKind
    created_at: datetime
    facts: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0
    sent_at: datetime | None = None


class Drift(StrEnum):
    """How our records and the provider's can differ."""

    PAID_BUT_SUSPENDED = "paid_but_suspended"
    ACTIVE_BUT_UNPAID = "active_but_unpaid"
    UNKNOWN_SUBSCRIPTION = "unknown_subscription"
    SUBSCRIPTION_MISSING = "subscription_missing"
    SECOND_SUBSCRIPTION = "second_subscription"
    UNKNOWN_PRICE = "unknown_price"
    UNKNOWN_STATUS = "unknown_status"
    STALE_RECORD = "stale_record"
    MISSED_EVENT = "missed_event"


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is a subscription's, instance's or event's id; `repaired` is whether this run set it right."""

    drift: Drift
    subject: str
    user_id: str | None
    detail: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One comparison. `problem` says why it could not be finished; then what is missing from it says nothing."""

    id: str
    started_at: datetime
    finished_at: datetime
    dry_run: bool
    subscriptions_read: int
    accounts_read: int
    events_read: int
    findings: Sequence[Finding]
    findings_omitted: int = 0
    problem: str | None = None

    def as_document(self) -> dict[str, Any]:
        """JSON-compatible apart from its times."""
        return {
            "id": self.id,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
            "dryRun": self.dry_run,
            "read": {
                "subscriptions": self.subscriptions_read,
                "accounts": self.accounts_read,
                "events": self.events_read,
            },
            "findings": [
                {
                    "drift": each.drift.value,
                    "subject": each.subject,
                    "userId": each.user_id,
                    "detail": each.detail,
                    "repaired": each.repaired,
                }
                for each in self.findings
            ],
            "findingsOmitted": self.findings_omitted,
            "problem": self.problem,
        }
