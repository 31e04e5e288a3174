"""What billing asks of its adapters.

Reads answer None for what the provider says does not exist. Every method of the gateway but `verify_webhook` may raise
PaymentUnavailable (no answer, or none that can be believed: of a change the outcome is unknown, and the same call with
the same key finds it) and PaymentRefused (a definite no; nothing was done).
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

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
