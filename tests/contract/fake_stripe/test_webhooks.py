"""The fake's events as they reach an endpoint: signed, again after a failure, and out of order when told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stripe

from tests.fake_stripe_process import WEBHOOK_SECRET, FakeStripeProcess
from tests.stripe_driver import customer, library
from tests.stripe_endpoint import Endpoint


@pytest.fixture
def fake(endpoint: Endpoint) -> Iterator[FakeStripeProcess]:
    with FakeStripeProcess("--webhook-url", endpoint.url) as fake:
        fake.control("webhooks", {"retrySeconds": [0.05, 0.05]})
        yield fake


def settle(fake: FakeStripeProcess) -> None:
    assert fake.settle()


def make(fake: FakeStripeProcess, count: int) -> list[str]:
    """So many customers; their ids."""
    client = library(fake.url)
    return [customer(client) for _ in range(count)]


def told_of(events: list[stripe.Event]) -> list[str]:
    return [event.data.object["id"] for event in events]


def test_an_event_is_signed_and_names_its_version(fake: FakeStripeProcess, endpoint: Endpoint) -> None:
    (made,) = make(fake, 1)
    settle(fake)
    (event,) = endpoint.events()
    assert (event.type, event.data.object["id"], event.api_version) == ("customer.created", made, stripe.api_version)
    assert event.pending_webhooks == 1
    assert library(fake.url).v1.events.retrieve(event.id).pending_webhooks == 0
    body, signature = endpoint.received[0]
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + b" ", signature, WEBHOOK_SECRET)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, signature, "whsec_other")


@pytest.mark.parametrize("status", [500, 400, 302])
def test_what_was_not_taken_comes_again(fake: FakeStripeProcess, endpoint: Endpoint, status: int) -> None:
    endpoint.statuses = [status]
    make(fake, 1)
    settle(fake)
    first, second = endpoint.events()
    assert first.id == second.id
    assert [one["status"] for one in fake.deliveries()] == [status, 200]


def test_an_event_is_given_up_in_the_end(fake: FakeStripeProcess, endpoint: Endpoint) -> None:
    endpoint.statuses = [500] * 3
    make(fake, 1)
    settle(fake)
    assert len(endpoint.received) == 3
    client = library(fake.url)
    (missed,) = client.v1.events.list({"delivery_success": False}).data
    fake.control(f"send/{missed.id}")
    settle(fake)
    assert endpoint.events()[-1].id == missed.id
    assert client.v1.events.list({"delivery_success": False}).data == []


def test_held_events_come_in_the_order_that_is_asked(fake: FakeStripeProcess, endpoint: Endpoint) -> None:
    fake.control("webhooks", {"hold": True, "concurrency": 1})
    made = make(fake, 12)
    settle(fake)
    assert endpoint.received == []
    fake.control("release", {"order": "reversed", "count": 6})
    settle(fake)
    assert told_of(endpoint.events()) == made[:6][::-1]
    fake.control("release", {"order": "shuffled", "seed": 3})
    settle(fake)
    shuffled = told_of(endpoint.events())[6:]
    assert sorted(shuffled) == sorted(made[6:])
    assert shuffled != made[6:]


def test_some_events_come_twice_when_told(fake: FakeStripeProcess, endpoint: Endpoint) -> None:
    fake.control("webhooks", {"hold": True})
    made = make(fake, 20)
    fake.control("release", {"order": "shuffled", "seed": 1, "duplicateShare": 0.3})
    settle(fake)
    seen = told_of(endpoint.events())
    assert set(seen) == set(made)
    assert 20 < len(seen) < 40


def test_dropped_events_are_only_on_the_list(fake: FakeStripeProcess, endpoint: Endpoint) -> None:
    fake.control("webhooks", {"dropTypes": ["customer.created"], "dropTimes": 1})
    dropped, kept = make(fake, 2)
    settle(fake)
    assert told_of(endpoint.events()) == [kept]
    assert told_of(library(fake.url).v1.events.list().data) == [kept, dropped]


def test_several_endpoints_take_turns(fake: FakeStripeProcess, endpoint: Endpoint) -> None:
    fake.control("webhooks", {"urls": [endpoint.url, "http://127.0.0.1:9/away"], "concurrency": 1})
    made = make(fake, 6)
    settle(fake)
    assert sorted(told_of(endpoint.events())) == sorted(made)  # what met the dead one came again to the living one


def test_any_event_can_be_made_up(fake: FakeStripeProcess, endpoint: Endpoint) -> None:
    fake.control("emit", {"type": "moon.risen", "object": {"object": "moon", "id": "moon_1"}})
    settle(fake)
    assert [event.type for event in endpoint.events()] == ["moon.risen"]
