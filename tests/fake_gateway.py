"""A payment gateway in memory, for what a test has to hold still: which read fails, and what is said when.

The wire, its ids, its idempotency and its events are the fake Stripe's (`controlplane.demo.fake_stripe`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import orjson

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
from controlplane.errors import MalformedRequest, PaymentError, PaymentUnavailable
from tests.billing_samples import START, price


def away() -> PaymentUnavailable:
    return PaymentUnavailable("Payments cannot be reached.", operator_message="connection refused")


class FakeGateway:
    """`failures` are raised by the next calls; `is_away` fails all; `loses_answers` does what is asked and then fails.
    `calls` are (method, idempotency key)."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.checkouts: dict[str, Checkout] = {}
        self.prices: dict[str, Price] = {}
        self.events: list[WebhookEvent] = []
        self.calls: list[tuple[str, str | None]] = []
        self.failures: list[PaymentError] = []
        self.is_away = False
        self.loses_answers = False
        self.before_answer: Callable[[str], None] = lambda _method: None
        self._answers: dict[str, str] = {}

    def put(self, *subscriptions: Subscription) -> None:
        for each in subscriptions:
            self.subscriptions[each.id] = each

    def count(self, method: str) -> int:
        return sum(called == method for called, _ in self.calls)

    def _call(self, method: str, key: str | None = None) -> None:
        self.calls.append((method, key))
        self.before_answer(method)
        if self.failures:
            raise self.failures.pop(0)
        if self.is_away:
            raise away()

    def _lose(self) -> None:
        if self.loses_answers:
            raise away()

    async def create_customer(self, *, user_id: str, email: str, key: str) -> str:
        self._call("create_customer", key)
        customer_id = self._answers.setdefault(key, f"cus_{len(self._answers)}")
        self._lose()
        return customer_id

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
        self._call("create_checkout", key)
        checkout_id = self._answers.setdefault(key, f"cs_{len(self._answers)}")
        made = Checkout(
            checkout_id, "open", "unpaid", customer_id, None, f"https://pay.example/{checkout_id}", START, user_id
        )
        self.checkouts.setdefault(checkout_id, made)
        self._lose()
        return self.checkouts[checkout_id]

    async def retrieve_checkout(self, checkout_id: str) -> Checkout | None:
        self._call("retrieve_checkout")
        return self.checkouts.get(checkout_id)

    async def expire_checkout(self, checkout_id: str, *, key: str) -> None:
        self._call("expire_checkout", key)
        self.checkouts[checkout_id] = replace(self.checkouts[checkout_id], status="expired", url=None)

    async def retrieve_price(self, price_id: str) -> Price | None:
        self._call("retrieve_price")
        return self.prices.get(price_id)

    async def retrieve_subscription(self, subscription_id: str) -> Subscription | None:
        self._call("retrieve_subscription")
        return self.subscriptions.get(subscription_id)

    async def list_subscriptions(
        self, *, customer_id: str | None = None, after: str | None = None, limit: int = 100
    ) -> SubscriptionPage:
        self._call("list_subscriptions")
        found = [each for each in self.subscriptions.values() if customer_id in (None, each.customer_id)]
        start = 0 if after is None else [each.id for each in found].index(after) + 1
        page = tuple(found[start : start + limit])
        return SubscriptionPage(page, page[-1].id if start + limit < len(found) else None)

    async def change_subscription_now(
        self, *, subscription_id: str, item_id: str, price_id: str, prorated_at: datetime | None, key: str
    ) -> Subscription:
        self._call("change_subscription_now", key)
        present = self.subscriptions[subscription_id]
        item = replace(present.items[0], price=replace(price(price_id)))
        self.subscriptions[subscription_id] = replace(present, items=(item,))
        self._lose()
        return self.subscriptions[subscription_id]

    async def preview_change(self, *, subscription_id: str, item_id: str, price_id: str) -> InvoicePreview:
        self._call("preview_change")
        return InvoicePreview(1234, "eur", (), START)

    async def schedule_downgrade(self, *, subscription_id: str, price_id: str, key: str) -> Subscription:
        self._call("schedule_downgrade", key)
        return self.subscriptions[subscription_id]

    async def release_schedule(self, schedule_id: str, *, key: str) -> None:
        self._call("release_schedule", key)
        for each in list(self.subscriptions.values()):
            if each.schedule is not None and each.schedule.id == schedule_id:
                self.subscriptions[each.id] = replace(each, schedule=None)

    async def set_cancel_at_period_end(self, subscription_id: str, cancel: bool, *, key: str) -> Subscription:
        self._call("set_cancel_at_period_end", key)
        changed = replace(self.subscriptions[subscription_id], cancel_at_period_end=cancel)
        self.subscriptions[subscription_id] = changed
        return changed

    async def create_portal_session(self, *, customer_id: str, return_url: str, key: str) -> PortalSession:
        self._call("create_portal_session", key)
        return PortalSession("https://portal.example")

    async def list_invoices(self, *, customer_id: str, after: str | None = None, limit: int = 20) -> InvoicePage:
        self._call("list_invoices")
        return InvoicePage((), None)

    async def list_events_since(self, since: datetime, *, after: str | None = None, limit: int = 100) -> EventPage:
        self._call("list_events_since")
        found = [each for each in self.events if each.created_at >= since]
        start = 0 if after is None else [each.id for each in found].index(after) + 1
        page = tuple(found[start : start + limit])
        return EventPage(page, page[-1].id if start + limit < len(found) else None)

    def verify_webhook(self, raw: bytes, signature: str | None) -> WebhookEvent:
        """A body names one of `events`; the signature is the word `signed`."""
        if signature != "signed":
            raise MalformedRequest("It is not signed.", code="signature_missing")
        event_id = orjson.loads(raw)["id"]
        return next(each for each in self.events if each.id == event_id)

    async def close(self) -> None:
        """Nothing is open."""
