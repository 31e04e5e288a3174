"""What the payment gateway and billing exchange: frozen views of the provider's objects, in our words. No I/O.

Money is whole minor units of `currency` (cents for `eur`), times are aware and in UTC. A view holds what billing
decides on and no more; names of Stripe's fields stand in the docstrings where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Interval(StrEnum):
    """How often a price is charged."""

    MONTH = "month"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class Price:
    """One recurring price. `interval` is the provider's word: one that we do not know is kept. `is_active`: may be
    sold now."""

    id: str
    amount: int
    currency: str
    interval: str
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class SubscriptionItem:
    """One line of a subscription. The period stands here since API version 2025-03-31."""

    id: str
    price: Price
    period_start: datetime
    period_end: datetime


@dataclass(frozen=True, slots=True)
class Invoice:
    """`status` is draft, open, paid, uncollectible or void, `hosted_url` where a person pays it.

    `subscription_id` is `parent.subscription_details.subscription`. `created_at` of the first unpaid invoice is when a
    subscription became past due.
    """

    id: str
    customer_id: str
    subscription_id: str | None
    status: str
    amount_due: int
    amount_paid: int
    currency: str
    created_at: datetime
    number: str | None = None
    hosted_url: str | None = None
    pdf_url: str | None = None
    attempt_count: int = 0
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A change that waits for its payment (`pending_update`): until then it grants nothing."""

    price_ids: tuple[str, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SchedulePhase:
    """`ends_at` is None for a phase without an end."""

    price_ids: tuple[str, ...]
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A subscription schedule. `status` is not_started, active, completed, released or canceled."""

    id: str
    status: str
    phases: tuple[SchedulePhase, ...]


@dataclass(frozen=True, slots=True)
class Subscription:
    """`status` is the provider's word as it came: `access` decides what it means, also for one that we do not know.

    `schedule` is None where none is attached, `latest_invoice` where there is none; both come expanded in every
    answer. `metadata` carries `user_id` for those that were made by our checkout.
    """

    id: str
    customer_id: str
    status: str
    items: tuple[SubscriptionItem, ...]
    created_at: datetime
    cancel_at_period_end: bool = False
    cancel_at: datetime | None = None
    canceled_at: datetime | None = None
    ended_at: datetime | None = None
    trial_end: datetime | None = None
    pending_update: PendingUpdate | None = None
    schedule: Schedule | None = None
    latest_invoice: Invoice | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A hosted page on which a subscription is bought (`checkout.session`). `status` is open, complete or expired.

    `url` is None once it is no longer open, `subscription_id` until it is paid.
    """

    id: str
    status: str
    payment_status: str
    customer_id: str | None
    subscription_id: str | None
    url: str | None
    expires_at: datetime
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class PortalSession:
    """Where a customer changes cards and reads invoices, for a few minutes."""

    url: str


@dataclass(frozen=True, slots=True)
class PreviewLine:
    """`amount` is negative for what is given back."""

    description: str
    amount: int
    is_proration: bool


@dataclass(frozen=True, slots=True)
class InvoicePreview:
    """What a change would cost. `amount_due` is what would be charged at once.

    `prorated_at` is the moment it was computed for: handed to `change_subscription_now`, the charge is what was shown.
    """

    amount_due: int
    currency: str
    lines: tuple[PreviewLine, ...]
    prorated_at: datetime


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What happened, and to whom: enough to know what to fetch again. Nothing in it is trusted for the state.

    `object_id` is the id of the object that the event is about; `customer_id` and `subscription_id` are read from
    whichever field that type keeps them in (the object itself for `customer.*` and `customer.subscription.*`), and
    `checkout_id` is set for `checkout.session.*`. `user_id` is ours, from the metadata, where the object carries it.
    """

    id: str
    type: str
    created_at: datetime
    object_id: str
    customer_id: str | None = None
    subscription_id: str | None = None
    invoice_id: str | None = None
    checkout_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionPage:
    """`next_after` is handed back as `after`; None at the end."""

    items: tuple[Subscription, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class InvoicePage:
    items: tuple[Invoice, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    items: tuple[WebhookEvent, ...]
    next_after: str | None
