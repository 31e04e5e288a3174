"""The gateway against the fake Stripe in its own process: what it asks, and what it makes of answers and of none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tornado.httputil import HTTPServerRequest

from controlplane.billing.records import Subscription, WebhookEvent
from controlplane.billing.stripe_gateway import StripeGateway
from controlplane.clock import SystemClock
from controlplane.errors import (
    MalformedRequest,
    PaymentRefused,
    PaymentUnavailable,
)
from tests.fake_stripe_process import API_KEY, LARGE, SMALL, WEBHOOK_SECRET, FakeStripeProcess
from tests.fakes import FakeClock
from tests.stripe_gateways import gateway_to, serving

URLS = {"success_url": "https://portal.example/?paid=1", "cancel_url": "https://portal.example/"}


@pytest.fixture(scope="module")
def process() -> Iterator[FakeStripeProcess]:
    with FakeStripeProcess() as fake:
        yield fake


@pytest.fixture
def fake(process: FakeStripeProcess) -> Iterator[FakeStripeProcess]:
    yield process
    process.control("cards", {"outcome": "succeed"})
    process.control("mischief", method="DELETE")


async def subscribed(fake: FakeStripeProcess, gateway: StripeGateway, name: str, price: str = SMALL) -> Subscription:
    """A customer of this name who has paid; `name` also keeps the tests' keys apart."""
    customer_id = await gateway.create_customer(user_id=name, email=f"{name}@example.org", key=f"{name}-customer")
    checkout = await gateway.create_checkout(
        customer_id=customer_id, user_id=name, price_id=price, trial_days=0, **URLS, key=f"{name}-checkout"
    )
    subscription = await gateway.retrieve_subscription(fake.pay(checkout.id)["subscription"])
    assert subscription is not None
    return subscription


async def upgrade(gateway: StripeGateway, subscription: Subscription, *, key: str) -> Subscription:
    return await gateway.change_subscription_now(
        subscription_id=subscription.id,
        item_id=subscription.items[0].id,
        price_id=LARGE,
        prorated_at=None,
        key=key,
    )


# -- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_the_same_key_makes_one_customer_and_one_checkout(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        twice = [
            await asyncio.gather(
                gateway.create_customer(user_id="twice", email="twice@example.org", key="twice-1"),
                gateway.create_customer(user_id="twice", email="twice@example.org", key="twice-1"),
            )
        ]
        assert len(set(twice[0])) == 1
        order: Any = {
            "customer_id": twice[0][0],
            "user_id": "twice",
            "price_id": SMALL,
            "trial_days": 0,
            **URLS,
        }
        first = await gateway.create_checkout(**order, key="twice-2")
        assert await gateway.create_checkout(**order, key="twice-2") == first
        with pytest.raises(PaymentRefused) as reused:
            await gateway.create_checkout(**{**order, "price_id": LARGE}, key="twice-2")
        assert reused.value.reason == "idempotency_key_reused"


@pytest.mark.gen_test
async def test_a_checkout_leads_to_a_subscription_that_names_its_user(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        customer_id = await gateway.create_customer(user_id="usr_7", email="seven@example.org", key="seven-1")
        checkout = await gateway.create_checkout(
            customer_id=customer_id, user_id="usr_7", price_id=SMALL, trial_days=14, **URLS, key="seven-2"
        )
        assert (checkout.status, checkout.user_id, checkout.subscription_id) == ("open", "usr_7", None)
        fake.pay(checkout.id)
        paid = await gateway.retrieve_checkout(checkout.id)
        assert paid is not None
        assert (paid.status, paid.url, paid.payment_status) == ("complete", None, "no_payment_required")
        assert paid.subscription_id is not None
        subscription = await gateway.retrieve_subscription(paid.subscription_id)
        assert subscription is not None
        assert (subscription.status, subscription.metadata) == ("trialing", {"user_id": "usr_7"})
        assert subscription.trial_end == subscription.items[0].period_end
        assert subscription.latest_invoice is not None
        assert subscription.latest_invoice.subscription_id == subscription.id


@pytest.mark.gen_test
async def test_what_does_not_exist_is_none(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        assert await gateway.retrieve_subscription("sub_nothing") is None
        assert await gateway.retrieve_checkout("cs_nothing") is None
        assert await gateway.retrieve_price("price/../customers") is None


@pytest.mark.gen_test
async def test_a_wrong_address_is_no_missing_subscription(fake: FakeStripeProcess) -> None:
    async with gateway_to(f"{fake.url}/elsewhere") as gateway:
        with pytest.raises((PaymentRefused, PaymentUnavailable)):
            await gateway.retrieve_subscription("sub_nothing")


@pytest.mark.gen_test
async def test_a_checkout_expires_once_and_not_after_it_was_paid(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        customer_id = await gateway.create_customer(user_id="exp", email="exp@example.org", key="exp-1")
        order: Any = {
            "customer_id": customer_id,
            "user_id": "exp",
            "price_id": SMALL,
            "trial_days": 0,
            **URLS,
        }
        left = await gateway.create_checkout(**order, key="exp-2")
        await gateway.expire_checkout(left.id, key="exp-3")
        await gateway.expire_checkout(left.id, key="exp-4")
        bought = await gateway.create_checkout(**order, key="exp-5")
        fake.pay(bought.id)
        with pytest.raises(PaymentRefused):
            await gateway.expire_checkout(bought.id, key="exp-6")


@pytest.mark.gen_test
async def test_an_upgrade_costs_what_its_preview_said(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        small = await subscribed(fake, gateway, "up")
        item_id = small.items[0].id
        preview = await gateway.preview_change(subscription_id=small.id, item_id=item_id, price_id=LARGE)
        assert [line.is_proration for line in preview.lines] == [True, True]
        fake.advance(days=3)
        large = await gateway.change_subscription_now(
            subscription_id=small.id, item_id=item_id, price_id=LARGE, prorated_at=preview.prorated_at, key="up-1"
        )
        assert large.pending_update is None
        assert large.items[0].price.id == LARGE
        assert large.latest_invoice is not None
        assert large.latest_invoice.amount_paid == preview.amount_due > 0


@pytest.mark.gen_test
async def test_a_change_in_a_trial_costs_nothing_now(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        customer_id = await gateway.create_customer(user_id="try", email="try@example.org", key="try-1")
        checkout = await gateway.create_checkout(
            customer_id=customer_id, user_id="try", price_id=SMALL, trial_days=14, **URLS, key="try-2"
        )
        trial = await gateway.retrieve_subscription(fake.pay(checkout.id)["subscription"])
        assert trial is not None
        preview = await gateway.preview_change(subscription_id=trial.id, item_id=trial.items[0].id, price_id=LARGE)
        assert preview.amount_due == 0
        assert [line.amount for line in preview.lines] == [2900]


@pytest.mark.gen_test
async def test_an_unpaid_upgrade_says_where_to_pay_and_grants_nothing(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        small = await subscribed(fake, gateway, "owing")
        fake.control("cards", {"customer": small.customer_id, "outcome": "decline", "times": 1})
        waiting = await upgrade(gateway, small, key="owing-1")
        assert waiting.pending_update is not None
        assert waiting.pending_update.price_ids == (LARGE,)
        assert waiting.items[0].price.id == SMALL
        assert waiting.latest_invoice is not None
        assert (waiting.latest_invoice.status, waiting.latest_invoice.amount_paid) == ("open", 0)
        assert waiting.latest_invoice.hosted_url == f"{fake.url}/invoice/{waiting.latest_invoice.id}"
        fake.control(f"pay-invoice/{waiting.latest_invoice.id}")
        paid = await gateway.retrieve_subscription(small.id)
        assert paid is not None
        assert (paid.pending_update, paid.items[0].price.id) == (None, LARGE)


@pytest.mark.gen_test
async def test_a_downgrade_waits_for_the_period_and_can_be_taken_back(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        large = await subscribed(fake, gateway, "down", LARGE)
        planned = await gateway.schedule_downgrade(subscription_id=large.id, price_id=SMALL, key="down-1")
        assert planned.schedule is not None
        assert [phase.price_ids for phase in planned.schedule.phases] == [(LARGE,), (SMALL,)]
        assert planned.schedule.phases[1].starts_at == large.items[0].period_end
        again = await gateway.schedule_downgrade(subscription_id=large.id, price_id=SMALL, key="down-1")
        assert again.schedule == planned.schedule
        await gateway.release_schedule(planned.schedule.id, key="down-2")
        await gateway.release_schedule(planned.schedule.id, key="down-3")
        kept = await gateway.retrieve_subscription(large.id)
        assert kept is not None
        assert (kept.schedule, kept.items[0].price.id) == (None, LARGE)
        with pytest.raises(PaymentRefused):
            await gateway.release_schedule("sub_sched_nothing", key="down-4")


@pytest.mark.gen_test
async def test_a_cancelation_is_set_and_taken_back(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        small = await subscribed(fake, gateway, "leaving")
        ending = await gateway.set_cancel_at_period_end(small.id, True, key="leaving-1")
        assert (ending.cancel_at_period_end, ending.cancel_at) == (True, small.items[0].period_end)
        kept = await gateway.set_cancel_at_period_end(small.id, False, key="leaving-2")
        assert (kept.cancel_at_period_end, kept.cancel_at) == (False, None)
        portal = await gateway.create_portal_session(
            customer_id=small.customer_id, return_url="https://portal.example/", key="leaving-3"
        )
        assert portal.url.startswith(f"{fake.url}/portal/")


@pytest.mark.gen_test
async def test_pages_lead_through_everything(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        made = [await subscribed(fake, gateway, f"page{number}") for number in range(12)]
        seen: list[str] = []
        after: str | None = None
        while True:
            page = await gateway.list_subscriptions(after=after)
            seen += [one.id for one in page.items]
            after = page.next_after
            if after is None:
                break
        assert len(seen) == len(set(seen))
        assert [one for one in seen if one in {each.id for each in made}] == [one.id for one in reversed(made)]
        since = made[0].created_at - timedelta(seconds=1)
        events: list[WebhookEvent] = []
        more: str | None = None
        while True:
            listed = await gateway.list_events_since(since, after=more)
            events += listed.items
            more = listed.next_after
            if more is None:
                break
        created = [one.subscription_id for one in events if one.type == "customer.subscription.created"]
        assert {one.id for one in made} <= set(created)
        invoices = await gateway.list_invoices(customer_id=made[3].customer_id)
        assert [one.subscription_id for one in invoices.items] == [made[3].id]


# -- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_events_of_the_fake_are_verified_and_read(fake: FakeStripeProcess) -> None:
    received: list[WebhookEvent] = []
    async with gateway_to(fake.url) as gateway:

        def take(request: HTTPServerRequest) -> tuple[int, dict[str, str], bytes]:
            received.append(gateway.verify_webhook(request.body, request.headers.get("Stripe-Signature")))
            return 200, {"Content-Length": "0"}, b""

        async with serving(take) as url:
            fake.control("webhooks", {"urls": [url]})
            small = await subscribed(fake, gateway, "told")
            assert await asyncio.to_thread(fake.settle)
            fake.control("webhooks", {"urls": []})
    by_type = {event.type: event for event in received if event.customer_id == small.customer_id}  # others' come too
    checkout = by_type["checkout.session.completed"]
    assert (checkout.customer_id, checkout.subscription_id, checkout.user_id) == (small.customer_id, small.id, "told")
    invoice = by_type["invoice.paid"]
    assert (invoice.subscription_id, invoice.customer_id, invoice.user_id) == (small.id, small.customer_id, "told")
    created = by_type["customer.subscription.created"]
    assert (created.object_id, created.subscription_id, created.user_id) == (small.id, small.id, "told")
    listed = await _listed(fake, created.id)
    assert listed == created


async def _listed(fake: FakeStripeProcess, event_id: str) -> WebhookEvent:
    """The same event from the list: both ways give the same record."""
    async with gateway_to(fake.url) as gateway:
        since = SystemClock().now() - timedelta(days=1)
        after: str | None = None
        while True:
            page = await gateway.list_events_since(since, after=after)
            for event in page.items:
                if event.id == event_id:
                    return replace(event)
            assert page.next_after is not None, f"{event_id} is not on the list"
            after = page.next_after


def test_the_gateways_own_clock_judges_signatures() -> None:
    gateway = StripeGateway(
        secret_key=API_KEY,
        webhook_secret=WEBHOOK_SECRET,
        api_base="http://127.0.0.1:9",
        timeout_seconds=1,
        clock=FakeClock(),
    )
    with pytest.raises(MalformedRequest) as missing:
        gateway.verify_webhook(b"{}", None)
    assert missing.value.stable_code == "signature_missing"
