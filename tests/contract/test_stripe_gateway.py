"""The gateway against the fake Stripe in its own process: what it asks, and what it makes of answers and of none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import stripe
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.testing import bind_unused_port

from controlplane.billing.records import Subscription, WebhookEvent
from controlplane.billing.stripe_gateway import API_VERSION, StripeGateway
from controlplane.billing.stripe_http import REQUESTS_AT_ONCE, WAITING_LIMIT
from controlplane.clock import SystemClock
from controlplane.errors import (
    MalformedRequest,
    PaymentBusy,
    PaymentMisconfigured,
    PaymentRefused,
    PaymentUnavailable,
)
from tests.fake_stripe_process import API_KEY, LARGE, SMALL, WEBHOOK_SECRET, FakeStripeProcess
from tests.fakes import FakeClock

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


@asynccontextmanager
async def gateway_to(url: str, *, timeout_seconds: float = 20, key: str = API_KEY) -> AsyncIterator[StripeGateway]:
    gateway = StripeGateway(
        secret_key=key,
        webhook_secret=WEBHOOK_SECRET,
        api_base=url,
        timeout_seconds=timeout_seconds,
        clock=SystemClock(),
    )
    try:
        yield gateway
    finally:
        await gateway.close()


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


def posts(fake: FakeStripeProcess, key: str) -> list[dict[str, Any]]:
    return [one for one in fake.requests() if one["idempotencyKey"] == key]


# -- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_the_same_key_makes_one_customer_and_one_checkout(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        twice = [
            await asyncio.gather(
                gateway.create_customer(user_id="twice", email="twice@example.org", key="twice-1"),
                gateway.create_customer(user_id="twice", email="twice@example.org", key="twice-1"),
            )
        ]
        assert len(set(twice[0])) == 1
        order = {"customer_id": twice[0][0], "user_id": "twice", "price_id": SMALL, "trial_days": 0, **URLS}
        first = await gateway.create_checkout(**order, key="twice-2")
        assert await gateway.create_checkout(**order, key="twice-2") == first
        with pytest.raises(PaymentRefused) as reused:
            await gateway.create_checkout(**{**order, "price_id": LARGE}, key="twice-2")
        assert reused.value.reason == "idempotency_key_reused"


@pytest.mark.gen_test(timeout=30)
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


@pytest.mark.gen_test(timeout=30)
async def test_what_does_not_exist_is_none(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        assert await gateway.retrieve_subscription("sub_nothing") is None
        assert await gateway.retrieve_checkout("cs_nothing") is None
        assert await gateway.retrieve_price("price/../customers") is None


@pytest.mark.gen_test(timeout=30)
async def test_a_wrong_address_is_no_missing_subscription(fake: FakeStripeProcess) -> None:
    async with gateway_to(f"{fake.url}/elsewhere") as gateway:
        with pytest.raises((PaymentRefused, PaymentUnavailable)):
            await gateway.retrieve_subscription("sub_nothing")


@pytest.mark.gen_test(timeout=30)
async def test_a_checkout_expires_once_and_not_after_it_was_paid(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url) as gateway:
        customer_id = await gateway.create_customer(user_id="exp", email="exp@example.org", key="exp-1")
        order = {"customer_id": customer_id, "user_id": "exp", "price_id": SMALL, "trial_days": 0, **URLS}
        left = await gateway.create_checkout(**order, key="exp-2")
        await gateway.expire_checkout(left.id, key="exp-3")
        await gateway.expire_checkout(left.id, key="exp-4")
        bought = await gateway.create_checkout(**order, key="exp-5")
        fake.pay(bought.id)
        with pytest.raises(PaymentRefused):
            await gateway.expire_checkout(bought.id, key="exp-6")


@pytest.mark.gen_test(timeout=30)
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


@pytest.mark.gen_test(timeout=30)
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


@pytest.mark.gen_test(timeout=30)
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


@pytest.mark.gen_test(timeout=30)
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


@pytest.mark.gen_test(timeout=30)
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


@pytest.mark.gen_test(timeout=60)
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


# -- when it goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lost", "reset"])
@pytest.mark.gen_test(timeout=30)
async def test_a_connection_that_ends_is_tried_again_under_the_same_key(fake: FakeStripeProcess, kind: str) -> None:
    fake.control("mischief", {"kind": kind, "method": "POST", "path": "/v1/customers"})
    async with gateway_to(fake.url) as gateway:
        before = fake.state()["objects"].get("customer", 0)
        assert await gateway.create_customer(user_id=kind, email=f"{kind}@example.org", key=f"{kind}-1")
        assert fake.state()["objects"]["customer"] == before + 1
    statuses = [one["status"] for one in posts(fake, f"{kind}-1")]
    assert statuses == ([0, 200] if kind == "lost" else [200])


@pytest.mark.parametrize(
    ("mischief", "failure", "calls"),
    [
        ({"kind": "error", "status": 503}, PaymentUnavailable, 3),
        ({"kind": "error", "status": 429}, PaymentUnavailable, 1),
        ({"kind": "garbage"}, PaymentUnavailable, 1),
        ({"kind": "reset"}, PaymentUnavailable, 0),
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_no_answer_that_can_be_believed_leaves_the_outcome_open(
    fake: FakeStripeProcess, mischief: dict[str, Any], failure: type[Exception], calls: int
) -> None:
    fake.control("mischief", {**mischief, "path": "/v1/subscriptions", "times": None})
    before = len(fake.requests())
    async with gateway_to(fake.url) as gateway:
        with pytest.raises(failure) as failed:
            await gateway.retrieve_subscription("sub_1")
        assert "sub_1" not in str(failed.value)
    assert len(fake.requests()) - before == calls


@pytest.mark.gen_test(timeout=30)
async def test_a_failure_that_stripe_keeps_under_a_key_asks_for_another_key(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "error", "status": 500, "method": "POST", "path": "/v1/customers"})
    async with gateway_to(fake.url) as gateway:
        who = {"user_id": "spent", "email": "spent@example.org"}
        with pytest.raises(PaymentUnavailable):
            await gateway.create_customer(**who, key="spent-1")
        with pytest.raises(PaymentRefused) as spent:
            await gateway.create_customer(**who, key="spent-1")
        assert spent.value.reason == "key_is_spent"
        assert await gateway.create_customer(**who, key="spent-2")


@pytest.mark.gen_test(timeout=30)
async def test_a_wrong_key_is_the_operators_business(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url, key="sk_test_wrong") as gateway:
        with pytest.raises(PaymentMisconfigured) as refused:
            await gateway.retrieve_subscription("sub_1")
    assert "sk_test_wrong" not in refused.value.operator_message
    assert "key" in refused.value.operator_message


@pytest.mark.gen_test(timeout=30)
async def test_a_slow_answer_is_given_up(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "slow", "seconds": 3, "path": "/v1/prices", "times": None})
    async with gateway_to(fake.url, timeout_seconds=0.3) as gateway:
        with pytest.raises(PaymentUnavailable):
            await gateway.retrieve_price(SMALL)


@pytest.mark.gen_test(timeout=30)
async def test_who_finds_the_waiting_room_full_is_told_at_once(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "slow", "seconds": 0.4, "path": "/v1/prices", "times": None})
    async with gateway_to(fake.url) as gateway:
        room = REQUESTS_AT_ONCE + WAITING_LIMIT
        calls = [asyncio.create_task(gateway.retrieve_price(SMALL)) for _ in range(room + 5)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    busy = [one for one in answers if isinstance(one, PaymentBusy)]
    assert len(busy) == 5
    assert len([one for one in answers if one is not None and not isinstance(one, BaseException)]) == room


@pytest.mark.gen_test(timeout=30)
async def test_callers_who_leave_give_their_turns_back(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "slow", "seconds": 0.5, "path": "/v1/prices", "times": REQUESTS_AT_ONCE})
    async with gateway_to(fake.url) as gateway:
        calls = [asyncio.create_task(gateway.retrieve_price(SMALL)) for _ in range(REQUESTS_AT_ONCE * 2)]
        await asyncio.sleep(0)  # let them take their places
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        found = await asyncio.gather(*(gateway.retrieve_price(SMALL) for _ in range(REQUESTS_AT_ONCE * 2)))
    assert {one.id for one in found if one is not None} == {SMALL}


@asynccontextmanager
async def serving(answer: Callable[[HTTPServerRequest], tuple[int, dict[str, str], bytes]]) -> AsyncIterator[str]:
    """A server on the test's own loop that answers each request so; its URL."""

    def serve(request: HTTPServerRequest) -> None:
        status, headers, body = answer(request)
        assert request.connection is not None
        request.connection.write_headers(ResponseStartLine("HTTP/1.1", status, ""), HTTPHeaders(headers), body)
        request.connection.finish()

    sockets, port = bind_unused_port()
    server = HTTPServer(serve)
    server.add_socket(sockets)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.mark.parametrize(
    ("headers", "body", "why"),
    [
        ({"Location": "/v1/prices/elsewhere"}, b"", "302"),
        ({"Content-Length": str(1 << 40)}, b"{", "Maximum file size"),
        ({"Transfer-Encoding": "chunked"}, b"x" * (5 << 20), "file size"),
        ({}, b"[]", "no object"),
        ({}, b'{"object": "price", "id": 7}', "no price"),
        ({}, b"\xff\xfe", "Invalid response body"),
        ({}, b"[" * 100_000, "Invalid response body"),
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_an_answer_that_breaks_the_rules_is_not_believed(headers: dict[str, str], body: bytes, why: str) -> None:
    asked: list[str | None] = []

    def answer(request: HTTPServerRequest) -> tuple[int, dict[str, str], bytes]:
        asked.append(request.path)
        length = {} if {"Content-Length", "Transfer-Encoding"} & headers.keys() else {"Content-Length": str(len(body))}
        return 302 if "Location" in headers else 200, {**headers, **length}, body

    async with serving(answer) as url, gateway_to(url) as gateway:
        with pytest.raises(PaymentUnavailable) as failed:
            await gateway.retrieve_price("price_1")
    assert why in failed.value.operator_message
    assert set(asked) == {"/v1/prices/price_1"}


@pytest.mark.gen_test(timeout=30)
async def test_no_proxy_of_the_environment_is_asked(fake: FakeStripeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with gateway_to(fake.url) as gateway:
        assert await gateway.retrieve_price(SMALL) is not None


@pytest.mark.gen_test(timeout=30)
async def test_a_request_names_its_version_and_its_key_and_tells_nothing_of_the_machine() -> None:
    seen: list[HTTPServerRequest] = []

    def answer(request: HTTPServerRequest) -> tuple[int, dict[str, str], bytes]:
        seen.append(request)
        body = b'{"id": "cus_1"}'
        return 200, {"Content-Length": str(len(body)), "Request-Id": "req_1"}, body

    async with serving(answer) as url, gateway_to(url) as gateway:
        for key in ("k1", "k2"):  # telemetry would go along with the second request
            await gateway.create_customer(user_id="usr_1", email="ada@example.org", key=key)
    assert [request.headers["Idempotency-Key"] for request in seen] == ["k1", "k2"]
    headers = seen[1].headers
    assert headers["Stripe-Version"] == API_VERSION == stripe.api_version
    assert headers["Authorization"] == f"Bearer {API_KEY}"
    assert "X-Stripe-Client-Telemetry" not in headers
    assert {"platform", "telemetry_id"} & orjson.loads(headers["X-Stripe-Client-User-Agent"]).keys() == set()


# -- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_events_of_the_fake_are_verified_and_read(fake: FakeStripeProcess) -> None:
    received: list[WebhookEvent] = []
    async with gateway_to(fake.url) as gateway:

        def take(request: HTTPServerRequest) -> tuple[int, dict[str, str], bytes]:
            received.append(gateway.verify_webhook(request.body, request.headers.get("Stripe-Signature")))
            return 200, {"Content-Length": "0"}, b""

        async with serving(take) as url:
            fake.control("webhooks", {"urls": [url]})
            small = await subscribed(fake, gateway, "told")
            await asyncio.to_thread(fake.control, "settle")
            fake.control("webhooks", {"urls": []})
    by_type = {event.type: event for event in received}
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
