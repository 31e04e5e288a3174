"""What billing asks of its adapters.

Reads answer None for what the provider says does not exist. Every method of the gateway but `verify_webhook` may raise
PaymentUnavailable (no answer, or none that can be believed: of a change the outcome is unknown, and the same call with
the same key finds it) and PaymentRefused (a definite no; nothing was done).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from controlplane.billing.accounts import BillingAccount, DriftReport, InboxEntry, Notice, Order, OrderKind
from controlplane.billing.records import (
    Checkout,
    EventPage,
    InvoicePage,
    InvoicePreview,
    PortalSession,
    Price,
    Subscription,
    SubscriptionPage,
    WebhookEvent,
)


class PaymentGateway(Protocol):
    """The payment provider. `key` is an idempotency key of ours, stored before the call: the same key and parameters
    give the first call's answer. A method that makes two calls derives a key for each from it."""

    async def create_customer(self, *, user_id: str, email: str, key: str) -> str:
        """The customer's id. `user_id` goes into its metadata."""

    async def create_checkout(
        self,
        *,
        customer_id: str,
        user_id: str,
        price_id: str,
        trial_days: int,
        success_url: str,
        cancel_url: str,
        key: str,
    ) -> Checkout:
        """`user_id` goes into the metadata of the session and of the subscription to come; `trial_days` 0: no trial."""

    async def retrieve_checkout(self, checkout_id: str) -> Checkout | None: ...

    async def expire_checkout(self, checkout_id: str, *, key: str) -> None:
        """It can no longer be paid. No error when it is expired already; PaymentRefused when it is complete."""

    async def retrieve_price(self, price_id: str) -> Price | None: ...

    async def retrieve_subscription(self, subscription_id: str) -> Subscription | None: ...

    async def list_subscriptions(
        self, *, customer_id: str | None = None, after: str | None = None, limit: int = 100
    ) -> SubscriptionPage:
        """Of every status, ended ones too; of one customer, or of all. Newest first."""

    async def change_subscription_now(
        self, *, subscription_id: str, item_id: str, price_id: str, prorated_at: datetime | None, key: str
    ) -> Subscription:
        """An upgrade: charged at once, prorated. Where the payment does not go through the answer has a
        `pending_update`, and its `latest_invoice` says where to pay. No schedule may be attached."""

    async def preview_change(self, *, subscription_id: str, item_id: str, price_id: str) -> InvoicePreview: ...

    async def schedule_downgrade(self, *, subscription_id: str, price_id: str, key: str) -> Subscription:
        """At the end of the period this price takes over, without proration; the schedule then lets go. Where a
        schedule is attached already, its later phases are replaced."""

    async def release_schedule(self, schedule_id: str, *, key: str) -> None:
        """The subscription goes on as it is. No error when it was released already."""

    async def set_cancel_at_period_end(self, subscription_id: str, cancel: bool, *, key: str) -> Subscription: ...

    async def create_portal_session(self, *, customer_id: str, return_url: str, key: str) -> PortalSession: ...

    async def list_invoices(self, *, customer_id: str, after: str | None = None, limit: int = 20) -> InvoicePage:
        """Newest first."""

    async def list_events_since(self, since: datetime, *, after: str | None = None, limit: int = 100) -> EventPage:
        """Events created at or after `since`, newest first; the provider keeps them for 30 days."""

    def verify_webhook(self, raw: bytes, signature: str | None) -> WebhookEvent:
        """Raises MalformedRequest: `signature_missing`, `signature_invalid`, `signature_expired` (older than the
        tolerance), `signature_from_future` (later than it), `not_utf8`, `not_json` or `not_an_event`."""

    async def close(self) -> None: ...


class BillingAccountRepository(Protocol):
    async def get(self, user_id: str) -> BillingAccount | None: ...

    async def find_by_customer(self, customer_id: str) -> BillingAccount | None: ...

    async def allowed(self, user_ids: Sequence[str]) -> set[str]:
        """Those of them whose account has access now."""

    async def put(self, account: BillingAccount) -> None:
        """Compare-and-set: the stored revision must be one less, or there must be none when it is 1. Raises
        StaleRevision, and Conflict (`customer_taken`) when another account has this customer."""

    async def needing_attention(self, now: datetime, *, limit: int) -> list[BillingAccount]:
        """Those whose `attention_at` has come, longest waiting first."""

    async def page(self, *, limit: int, after: str | None) -> list[BillingAccount]:
        """In order of user id."""

    async def changed_since(self, since: datetime | None) -> tuple[list[BillingAccount], datetime]:
        """Written since a moment of the server's clock, overlapping enough that no write is missed, and the moment to
        ask from next. None: only that moment."""


class OrderRepository(Protocol):
    async def open(
        self, user_id: str, kind: OrderKind, target: str, *, key: str, now: datetime, not_before: datetime
    ) -> Order:
        """The open order for this target, made no earlier than `not_before`; else a new one under `key`, in the place
        of any other of this kind. Of many at once all get the same."""

    async def get(self, user_id: str, kind: OrderKind) -> Order | None: ...

    async def set_result(self, order: Order, result: str) -> None:
        """Nothing happens when another order has taken its place."""

    async def close(self, order: Order) -> None:
        """The next order for the same target is a new one."""


class InboxRepository(Protocol):
    async def receive(self, entry: InboxEntry) -> bool:
        """False when this event is known already."""

    async def get(self, event_id: str) -> InboxEntry | None: ...

    async def known(self, event_ids: Sequence[str]) -> set[str]: ...

    async def claim(self, event_id: str, owner: str, *, lease_seconds: float) -> InboxEntry | None:
        """Take it up for processing, unless it is done or another holds it. The server's clock decides."""

    async def finish(self, event_id: str, owner: str, outcome: str) -> None:
        """Only for the one who holds it; so for `fail`."""

    async def fail(self, event_id: str, owner: str, reason: str, *, retry_seconds: float) -> None: ...

    async def left_over(self, *, idle_seconds: float, limit: int) -> list[str]:
        """Events that nobody works on: received so long ago, held by one whose lease ended, or failed and due again;
        oldest first."""


class NoticeRepository(Protocol):
    async def add(self, notice: Notice) -> bool:
        """False when it exists already, sent or not."""

    async def get(self, notice_id: str) -> Notice | None: ...

    async def claim(self, notice_id: str, owner: str, *, lease_seconds: float) -> Notice | None:
        """The right to send it, unless it is sent or another holds it. The server's clock decides."""

    async def mark_sent(self, notice_id: str, owner: str, at: datetime) -> None: ...

    async def give_back(self, notice_id: str, owner: str, *, retry_seconds: float) -> None:
        """It could not be sent now."""

    async def give_up(self, notice_id: str, owner: str) -> None:
        """It will not be sent."""

    async def unsent(self, *, limit: int) -> list[str]:
        """Those that may be claimed now, oldest first."""


class DriftRepository(Protocol):
    async def add(self, report: DriftReport) -> None: ...

    async def latest(self) -> DriftReport | None:
        """The latest that was no dry run."""

    async def events_read_until(self) -> datetime | None:
        """The provider's events created before this were compared with the inbox."""

    async def set_events_read_until(self, moment: datetime) -> None: ...
