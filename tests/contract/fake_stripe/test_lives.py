"""What becomes of a checkout and of a subscription in the fake, as time passes and cards answer."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.fake_stripe_process import SMALL, FakeStripeProcess
from tests.stripe_driver import customer, item_of, now, order, subscribed, types, upgrade, visit

DAY = 86_400


# -- checkout ---------------------------------------------------------------------------------------------------------


def test_a_person_pays_on_the_hosted_page(client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order(customer(client)))
    assert session.subscription is None
    assert session.url is not None
    status, _, page = visit(session.url)
    assert status == 200
    assert "9.00 EUR" in page
    assert "declined" in visit(session.url, "decline")[2]
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    status, onward, _ = visit(session.url, "pay")
    assert (status, onward) == (303, f"https://portal.example/paid?session={session.id}")
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription", "line_items"]})
    assert (paid.status, paid.payment_status, paid.url) == ("complete", "paid", None)
    assert isinstance(paid.subscription, stripe.Subscription)
    assert (paid.subscription.status, paid.subscription.metadata["user_id"]) == ("active", "usr_1")
    assert visit(session.url)[0] == 410
    assert "checkout.session.completed" in types(client, session.id)


def test_a_trial_costs_nothing_at_first(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order(customer(client), subscription_data={"trial_period_days": 14}))
    paid = fake.pay(session.id)
    assert paid["payment_status"] == "no_payment_required"
    trial = client.v1.subscriptions.retrieve(paid["subscription"], {"expand": ["latest_invoice"]})
    assert (trial.status, trial.trial_end) == ("trialing", now(fake) + 14 * DAY)
    assert trial.latest_invoice.amount_due == 0  # type: ignore[union-attr]


def test_an_unpaid_session_expires(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    owner = customer(client)
    late = client.v1.checkout.sessions.create(order(owner))
    closed = client.v1.checkout.sessions.create(order(owner))
    client.v1.checkout.sessions.expire(closed.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.expire(closed.id)
    fake.advance(days=1)
    for session in (late, closed):
        assert client.v1.checkout.sessions.retrieve(session.id).status == "expired"
        assert types(client, session.id) == ["checkout.session.expired"]


@pytest.mark.parametrize(("answer", "event"), [("bank_paid", "succeeded"), ("bank_failed", "failed")])
def test_a_bank_debit_is_answered_later(
    fake: FakeStripeProcess, client: stripe.StripeClient, answer: str, event: str
) -> None:
    session = client.v1.checkout.sessions.create(order(customer(client)))
    begun = fake.control(f"checkout/{session.id}", {"outcome": "bank_debit"})
    assert begun["payment_status"] == "unpaid"
    fake.control(f"checkout/{session.id}", {"outcome": answer})
    assert types(client, session.id) == ["checkout.session.completed", f"checkout.session.async_payment_{event}"]
    status = client.v1.subscriptions.retrieve(begun["subscription"]).status
    assert status == ("active" if answer == "bank_paid" else "past_due")


# -- a subscription's life --------------------------------------------------------------------------------------------


def test_a_trial_ends_with_a_warning_three_days_before(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    made = subscribed(client, trial_period_days=14)
    fake.advance(days=10)
    assert "customer.subscription.trial_will_end" not in types(client, made.id)
    fake.advance(days=1)
    assert types(client, made.id).count("customer.subscription.trial_will_end") == 1
    fake.advance(days=3, seconds=3601)
    paid = client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]})
    assert (paid.status, paid.latest_invoice.amount_paid) == ("active", 900)  # type: ignore[union-attr]


def test_a_period_renews_and_is_charged_an_hour_later(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    made = subscribed(client)
    first_end = item_of(made).current_period_end
    fake.control("clock", {"advanceTo": first_end})
    renewed = client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]})
    assert item_of(renewed).current_period_start == first_end
    assert (renewed.status, renewed.latest_invoice.status) == ("active", "draft")  # type: ignore[union-attr]
    fake.advance(seconds=3600)
    invoice = client.v1.invoices.retrieve(renewed.latest_invoice.id)  # type: ignore[union-attr]
    assert (invoice.status, invoice.billing_reason) == ("paid", "subscription_cycle")
    assert invoice.parent.subscription_details.subscription == made.id  # type: ignore[union-attr]


@pytest.mark.parametrize("end", ["unpaid", "canceled", "past_due"])
def test_failed_payments_are_retried_and_then_given_up(
    fake: FakeStripeProcess, client: stripe.StripeClient, end: str
) -> None:
    fake.control("dunning", {"retryDays": [3, 7], "end": end})
    made = subscribed(client)
    fake.control("cards", {"customer": str(made.customer), "outcome": "decline"})
    fake.control("clock", {"advanceTo": item_of(made).current_period_end + 3600})
    failed = client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]})
    invoice: Any = failed.latest_invoice
    assert (failed.status, invoice.status, invoice.attempt_count) == ("past_due", "open", 1)
    assert invoice.next_payment_attempt == now(fake) + 3 * DAY
    fake.advance(days=3)
    assert client.v1.invoices.retrieve(invoice.id).attempt_count == 2
    fake.advance(days=4)
    assert client.v1.subscriptions.retrieve(made.id).status == end
    assert types(client, invoice.id).count("invoice.payment_failed") == 3


def test_paying_the_open_invoice_brings_a_subscription_back(
    fake: FakeStripeProcess, client: stripe.StripeClient
) -> None:
    made = subscribed(client)
    fake.control("cards", {"customer": str(made.customer), "outcome": "decline", "times": 1})
    fake.control("clock", {"advanceTo": item_of(made).current_period_end + 3600})
    failed = client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]})
    url: Any = failed.latest_invoice.hosted_invoice_url  # type: ignore[union-attr]
    assert "Pay 9.00 EUR" in visit(url)[2]
    assert "paid" in visit(url, "pay")[2]
    assert client.v1.subscriptions.retrieve(made.id).status == "active"


def test_a_declined_payment_by_the_api_is_a_card_error(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    fake.control("cards", {"outcome": "decline"})
    made = client.v1.subscriptions.create({"customer": customer(client), "items": [{"price": SMALL}]})
    assert made.status == "incomplete"
    with pytest.raises(stripe.CardError) as declined:
        client.v1.invoices.pay(str(made.latest_invoice))
    assert declined.value.code == "card_declined"
    fake.advance(days=1)
    assert client.v1.subscriptions.retrieve(made.id).status == "incomplete_expired"


def test_a_trial_without_a_card_pauses_and_is_resumed(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    made = client.v1.subscriptions.create(
        {
            "customer": customer(client),
            "items": [{"price": SMALL}],
            "trial_period_days": 7,
            "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
        }
    )
    fake.advance(days=7)
    assert client.v1.subscriptions.retrieve(made.id).status == "paused"
    client.v1.customers.update(str(made.customer), {"invoice_settings": {"default_payment_method": "pm_1"}})
    assert client.v1.subscriptions.resume(made.id).status == "active"
    told = types(client, made.id)
    assert "customer.subscription.paused" in told
    assert "customer.subscription.resumed" in told


def test_a_deleted_customer_takes_the_subscriptions_along(client: stripe.StripeClient) -> None:
    made = subscribed(client)
    assert client.v1.customers.delete(str(made.customer)).deleted
    assert client.v1.customers.retrieve(str(made.customer)).deleted
    assert client.v1.subscriptions.retrieve(made.id).status == "canceled"
    assert "customer.deleted" in types(client, str(made.customer))
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.create(order(str(made.customer)))


def test_the_portal_shows_invoices_and_takes_a_new_card(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    made = subscribed(client)
    fake.control("cards", {"customer": str(made.customer), "outcome": "decline"})
    portal = client.v1.billing_portal.sessions.create(
        {"customer": str(made.customer), "return_url": "https://portal.example/"}
    )
    assert "9.00 EUR" in visit(portal.url)[2]
    visit(portal.url, "card")
    assert upgrade(client, made).pending_update is None
    assert "ends on" in visit(portal.url, "cancel")[2]


def test_updated_events_say_what_was_before(client: stripe.StripeClient) -> None:
    made = subscribed(client)
    client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True}, {"idempotency_key": "cancel-1"})
    event = client.v1.events.list({"type": "customer.subscription.updated"}).data[0]
    assert event.data.previous_attributes["cancel_at_period_end"] is False  # type: ignore[index]
    assert event.data.object["cancel_at_period_end"] is True
    assert event.request is not None
    assert event.request.idempotency_key == "cancel-1"
