"""Every request that the gateway can make is one that Stripe's own stripe-mock accepts.

The gateway is walked through all of its methods against the fake, which has the state that stripe-mock lacks; what went
over the wire is then sent to stripe-mock, byte for byte.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.billing.ports import PaymentGateway
from controlplane.billing.records import Subscription
from controlplane.billing.stripe_gateway import StripeGateway
from controlplane.clock import SystemClock
from controlplane.errors import PaymentRefused
from tests.fake_stripe_process import API_KEY, LARGE, SMALL, SMALL_YEARLY, WEBHOOK_SECRET, FakeStripeProcess
from tests.stripe.test_fake_against_description import refusal

WITHOUT_A_REQUEST = {"verify_webhook", "close"}
# Each call and parameter that a method can send in more than one way is sent in each of them.
EXPECTED_CALLS = {
    "POST /v1/customers",
    "POST /v1/checkout/sessions",
    "GET /v1/checkout/sessions/:id",
    "POST /v1/checkout/sessions/:id/expire",
    "GET /v1/prices/:id",
    "GET /v1/subscriptions",
    "GET /v1/subscriptions/:id",
    "POST /v1/subscriptions/:id",
    "POST /v1/invoices/create_preview",
    "POST /v1/subscription_schedules",
    "POST /v1/subscription_schedules/:id",
    "POST /v1/subscription_schedules/:id/release",
    "GET /v1/subscription_schedules/:id",
    "POST /v1/billing_portal/sessions",
    "GET /v1/invoices",
    "GET /v1/events",
}


class Called:
    """The gateway, with the names of the methods that were called."""

    def __init__(self, gateway: StripeGateway) -> None:
        self._gateway = gateway
        self.methods: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.methods.add(name)
        return getattr(self._gateway, name)


async def walk(fake: FakeStripeProcess, gateway: Any) -> None:
    customer_id = await gateway.create_customer(user_id="usr_1", email="ada+1@example.org", key="customer")
    urls = {"success_url": "https://portal.example/?paid=1#billing", "cancel_url": "https://portal.example/"}
    who = {"customer_id": customer_id, "user_id": "usr_1"}
    left = await gateway.create_checkout(**who, price_id=SMALL, trial_days=14, **urls, key="checkout-1")
    await gateway.expire_checkout(left.id, key="expire-1")
    await gateway.expire_checkout(left.id, key="expire-2")
    bought = await gateway.create_checkout(**who, price_id=SMALL, trial_days=0, **urls, key="checkout-2")
    fake.pay(bought.id)
    checkout = await gateway.retrieve_checkout(bought.id)
    await gateway.retrieve_price(SMALL)
    subscription: Subscription = await gateway.retrieve_subscription(checkout.subscription_id)
    change = {"subscription_id": subscription.id, "item_id": subscription.items[0].id}
    preview = await gateway.preview_change(**change, price_id=LARGE)
    await gateway.change_subscription_now(**change, price_id=LARGE, prorated_at=preview.prorated_at, key="change-1")
    await gateway.change_subscription_now(**change, price_id=SMALL_YEARLY, prorated_at=None, key="change-2")
    scheduled = await gateway.schedule_downgrade(subscription_id=subscription.id, price_id=SMALL, key="down-1")
    await gateway.schedule_downgrade(subscription_id=subscription.id, price_id=LARGE, key="down-2")
    await gateway.release_schedule(scheduled.schedule.id, key="release-1")
    await gateway.release_schedule(scheduled.schedule.id, key="release-2")
    await gateway.set_cancel_at_period_end(subscription.id, True, key="cancel")
    await gateway.set_cancel_at_period_end(subscription.id, False, key="resume")
    await gateway.create_portal_session(customer_id=customer_id, return_url="https://portal.example/", key="portal")
    await in_trial(fake, gateway, who, urls)
    for narrowed in ({}, {"customer_id": customer_id}, {"after": subscription.id, "limit": 1}):
        await gateway.list_subscriptions(**narrowed)
    invoices = await gateway.list_invoices(customer_id=customer_id)
    await gateway.list_invoices(customer_id=customer_id, after=invoices.items[-1].id, limit=1)
    since = datetime(2026, 1, 1, tzinfo=UTC)
    events = await gateway.list_events_since(since)
    await gateway.list_events_since(since, after=events.items[-1].id, limit=5)


async def in_trial(fake: FakeStripeProcess, gateway: Any, who: dict[str, str], urls: dict[str, str]) -> None:
    """A downgrade in a trial has to say the trial's end again."""
    bought = await gateway.create_checkout(**who, price_id=LARGE, trial_days=7, **urls, key="checkout-3")
    trial = fake.pay(bought.id)["subscription"]
    await gateway.schedule_downgrade(subscription_id=trial, price_id=SMALL, key="down-3")


@pytest.mark.gen_test(timeout=110)
async def test_stripe_mock_accepts_every_request_of_the_gateway(mock_url: str) -> None:
    with FakeStripeProcess() as fake:
        gateway = Called(
            StripeGateway(
                secret_key=API_KEY,
                webhook_secret=WEBHOOK_SECRET,
                api_base=fake.url,
                timeout_seconds=60,
                clock=SystemClock(),
            )
        )
        await walk(fake, gateway)
        await gateway.close()
        requests = fake.requests()
    public = {name for name in vars(PaymentGateway) if not name.startswith("_")}
    assert gateway.methods | WITHOUT_A_REQUEST == public
    assert {one["call"] for one in requests} == EXPECTED_CALLS
    refused = [
        f"{one['method']} {one['path']} {one['encoded']}: {answer}"
        for one in requests
        if (
            answer := refusal(
                mock_url,
                one["method"],
                one["path"],
                one["encoded"] if one["method"] == "GET" else "",
                one["encoded"] if one["method"] == "POST" else None,
            )
        )
    ]
    assert refused == []


@pytest.mark.gen_test(timeout=110)
async def test_stripe_mock_does_refuse(mock_url: str) -> None:
    """It looks at what it gets: a request with a parameter too many is refused through the very gateway."""
    gateway = StripeGateway(
        secret_key=API_KEY,
        webhook_secret=WEBHOOK_SECRET,
        api_base=mock_url,
        timeout_seconds=60,
        clock=SystemClock(),
    )
    assert await gateway.create_customer(user_id="usr_1", email="ada@example.org", key="c")
    with pytest.raises(PaymentRefused, match="did not accept") as refused:
        await gateway._post("customers", "d", colour="red")
    assert "additional properties are not allowed" in refused.value.operator_message
    await gateway.close()
