"""The official Stripe library as a client of the fake: its encoding, headers and errors, over plain urllib."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

import stripe
from tornado.httputil import HTTPHeaders

from tests.fake_stripe_process import API_KEY, LARGE, SMALL, FakeStripeProcess


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as it went over the wire, and its answer. `body` is the form of a POST, or None."""

    method: str
    path: str
    query: str
    body: str | None
    status: int
    headers: Message
    answer: Any


class Recorder(stripe.HTTPClient):
    """Remembers every exchange."""

    name = "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[Exchange] = []

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **_: Any
    ) -> tuple[str, int, Mapping[str, str]]:
        data = (post_data or "").encode() if method == "post" else None
        request = urllib.request.Request(url, data=data, headers=dict(headers or {}), method=method.upper())
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                raw, status, given = response.read().decode(), response.status, response.headers
        except urllib.error.HTTPError as error:
            with error:
                raw, status, given = error.read().decode(), error.code, error.headers
        parts = urlsplit(url)
        body = None if data is None else data.decode()
        self.exchanges.append(
            Exchange(method.upper(), parts.path, parts.query, body, status, given, json.loads(raw) if raw else None)
        )
        return raw, status, HTTPHeaders(dict(given))

    def close(self) -> None:
        """Nothing is kept open."""


def library(
    url: str, recorder: Recorder | None = None, *, api_key: str = API_KEY, **options: Any
) -> stripe.StripeClient:
    """The library against this URL. It retries nothing, so that each call is one exchange."""
    stripe.enable_telemetry = False
    return stripe.StripeClient(
        api_key,
        base_addresses={"api": url},
        http_client=recorder or Recorder(),
        max_network_retries=0,
        **options,
    )


def customer(client: stripe.StripeClient, **more: Any) -> str:
    params: Any = {"email": "ada@example.org", "metadata": {"user_id": "usr_1"}, **more}
    return client.v1.customers.create(params).id


def subscribed(client: stripe.StripeClient, price: str = SMALL, **more: Any) -> stripe.Subscription:
    order = {"customer": customer(client), "items": [{"price": price}], "default_payment_method": "pm_card_visa"}
    params: Any = {**order, **more}
    return client.v1.subscriptions.create(params)


def now(fake: FakeStripeProcess) -> int:
    return int(fake.state()["now"])


def types(client: stripe.StripeClient, object_id: str) -> list[str]:
    """The types of the events about this object, the oldest first."""
    events = client.v1.events.list({"limit": 100}).auto_paging_iter()
    return [str(event.type) for event in events if event.data.object["id"] == object_id][::-1]


def item_of(subscription: stripe.Subscription) -> Any:
    return subscription["items"].data[0]


def order(owner: str, **more: Any) -> Any:
    return {
        "mode": "subscription",
        "customer": owner,
        "line_items": [{"price": SMALL, "quantity": 1}],
        "success_url": "https://portal.example/paid?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://portal.example/",
        "subscription_data": {"metadata": {"user_id": "usr_1"}},
        **more,
    }


def visit(url: str, outcome: str | None = None) -> tuple[int, str, str]:
    """What a browser would get: status, where it was sent on to, and the page. `outcome` presses that button."""
    data = None if outcome is None else urllib.parse.urlencode({"outcome": outcome}).encode()
    opener = urllib.request.build_opener(_NoRedirect())
    try:
        with opener.open(url, data, timeout=60) as answer:
            return answer.status, "", answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("Location", ""), error.read().decode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def upgrade(client: stripe.StripeClient, subscription: stripe.Subscription, price: str = LARGE) -> stripe.Subscription:
    return client.v1.subscriptions.update(
        subscription.id,
        {
            "items": [{"id": item_of(subscription).id, "price": price}],
            "proration_behavior": "always_invoice",
            "payment_behavior": "pending_if_incomplete",
            "expand": ["latest_invoice"],
        },
    )


def schedule_for(client: stripe.StripeClient, made: stripe.Subscription, price: str) -> stripe.SubscriptionSchedule:
    """The downgrade of the documentation: created from the subscription alone, then given its phases."""
    schedule = client.v1.subscription_schedules.create({"from_subscription": made.id})
    present = schedule.phases[0]
    return client.v1.subscription_schedules.update(
        schedule.id,
        {
            "phases": [
                {
                    "items": [{"price": item_of(made).price.id, "quantity": 1}],
                    "start_date": present.start_date,
                    "end_date": present.end_date,
                },
                {"items": [{"price": price}], "duration": {"interval": "month"}, "proration_behavior": "none"},
            ],
            "end_behavior": "release",
        },
    )
