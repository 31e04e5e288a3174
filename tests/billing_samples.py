"""Records of billing for the tests, with defaults that make sense together."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from controlplane.billing.accounts import Access, BillingAccount, InboxEntry, Notice, NoticeKind, Subscribed
from controlplane.billing.plans import PlanCatalog, load_plans
from controlplane.billing.records import Invoice, Price, Subscription, SubscriptionItem
from controlplane.billing.timeline import Policy

START = datetime(2126, 1, 1, tzinfo=UTC)  # far ahead: the server deletes old rows by its own clock
POLICY = Policy(grace_days=10, termination_enabled=False, termination_days=30)
TERMINATING = replace(POLICY, termination_enabled=True)


def example_plans() -> PlanCatalog:
    return load_plans(Path(__file__).resolve().parent.parent / "conf" / "plans.toml")


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def price(price_id: str = "price_starter_month", amount: int = 900) -> Price:
    return Price(price_id, amount, "eur", "month")


def invoice(**changes: Any) -> Invoice:
    fields: dict[str, Any] = {
        "id": "in_1",
        "customer_id": "cus_1",
        "subscription_id": "sub_1",
        "status": "open",
        "amount_due": 900,
        "amount_paid": 0,
        "currency": "eur",
        "created_at": START,
        "hosted_url": "https://pay.example/in_1",
    }
    return Invoice(**{**fields, **changes})


def subscription(status: str = "active", **changes: Any) -> Subscription:
    fields: dict[str, Any] = {
        "id": "sub_1",
        "customer_id": "cus_1",
        "items": (SubscriptionItem("si_1", price(changes.pop("price_id", "price_starter_month")), START, day(31)),),
        "created_at": START,
        "metadata": {"user_id": "usr_1"},
    }
    return Subscription(status=status, **{**fields, **changes})


def subscribed(status: str = "active", **changes: Any) -> Subscribed:
    fields: dict[str, Any] = {
        "id": "sub_1",
        "plan_id": "starter",
        "price_id": "price_starter_month",
        "item_id": "si_1",
        "interval": "month",
        "amount": 900,
        "currency": "eur",
        "period_end": day(31),
    }
    return Subscribed(status=status, **{**fields, **changes})


def account(**changes: Any) -> BillingAccount:
    fields: dict[str, Any] = {
        "user_id": "usr_1",
        "customer_id": "cus_1",
        "subscription": subscribed(),
        "access": Access.FULL,
        "access_since": START,
        "access_epoch": 1,
        "applied_epoch": 1,
        "observed_at": START,
        "revision": 1,
    }
    return BillingAccount(**{**fields, **changes})


def entry(event_id: str = "evt_1", **changes: Any) -> InboxEntry:
    fields: dict[str, Any] = {
        "type": "customer.subscription.updated",
        "created_at": START,
        "received_at": START,
        "source": "webhook",
        "object_id": "sub_1",
        "customer_id": "cus_1",
        "subscription_id": "sub_1",
    }
    return InboxEntry(id=event_id, **{**fields, **changes})


def notice(notice_id: str = "sub_1:payment_failed:in_1", **changes: Any) -> Notice:
    fields: dict[str, Any] = {
        "user_id": "usr_1",
        "kind": NoticeKind.PAYMENT_FAILED,
        "created_at": START,
        "facts": {"amount": "9.00 EUR"},
    }
    return Notice(id=notice_id, **{**fields, **changes})
