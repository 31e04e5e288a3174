"""Each kind of event leads to a look at its customer, whoever that turns out to be."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from controlplane.billing.accounts import Access, InboxState, OrderKind
from controlplane.billing.records import Checkout, Interval
from controlplane.billing.webhooks import HANDLED
from controlplane.errors import MalformedRequest
from controlplane.storage.billing_inbox import MongoInboxRepository
from controlplane.storage.billing_orders import MongoOrderRepository
from controlplane.storage.database import Database
from tests.billing_house import BillingHouse
from tests.billing_samples import START, invoice, subscription
from tests.fake_gateway import away


async def deliver(house: BillingHouse, event_id: str) -> InboxState:
    return await house.billing.inbox.deliver(orjson.dumps({"id": event_id}), "signed")


async def outcome(database: Database, event_id: str) -> str | None:
    entry = await MongoInboxRepository(database).get(event_id)
    assert entry is not None
    return entry.outcome


def test_operators_are_told_of_every_event_that_is_acted_on() -> None:
    told = Path("docs/operations.md").read_text()
    assert [name for name in sorted(HANDLED) if f"{name} " not in told and f"{name}\n" not in told] == []


@pytest.mark.gen_test(timeout=60)
async def test_every_kind_of_event_leads_to_a_look(database: Database) -> None:
    house = BillingHouse(database)
    for number, kind in enumerate(sorted(HANDLED), start=1):
        await house.user(number)
        await house.subscribe(number)
        event = house.event(kind, number, event_id=f"evt_{kind}", subscription_id=None)
        assert await deliver(house, event.id) is InboxState.DONE, kind
        assert await outcome(database, event.id) == "settled", kind
        assert (await house.account(number)).access is Access.FULL, kind


@pytest.mark.gen_test(timeout=60)
async def test_a_second_delivery_of_what_is_done_does_nothing(database: Database) -> None:
    house = BillingHouse(database)
    await house.user()
    await house.subscribe()
    event = house.event("invoice.paid")
    assert await deliver(house, event.id) is InboxState.DONE
    calls = len(house.gateway.calls)
    assert await deliver(house, event.id) is InboxState.DONE
    assert len(house.gateway.calls) == calls


@pytest.mark.gen_test(timeout=60)
async def test_what_is_being_worked_on_elsewhere_is_left_alone(database: Database) -> None:
    house = BillingHouse(database)
    await house.user()
    await house.subscribe()
    event = house.event("invoice.paid")
    inbox = MongoInboxRepository(database)
    await inbox.receive(house.billing.inbox._entry(event, source="webhook"))
    await inbox.claim(event.id, "another", lease_seconds=60)
    assert await deliver(house, event.id) is InboxState.PROCESSING
    assert house.gateway.calls == []


@pytest.mark.gen_test(timeout=60)
async def test_a_failed_event_is_kept_with_its_reason_and_taken_up_again(database: Database) -> None:
    house = BillingHouse(database)
    await house.user()
    await house.subscribe()
    event = house.event("invoice.paid")
    house.gateway.failures = [away()]
    assert await deliver(house, event.id) is InboxState.FAILED
    assert await outcome(database, event.id) == "connection refused"
    await house.billing.inbox.resume_once()  # not due yet
    assert (await house.account()).access is Access.NONE
    assert await deliver(house, event.id) is InboxState.DONE
    assert (await house.account()).access is Access.FULL


@pytest.mark.gen_test(timeout=60)
async def test_a_customer_that_we_do_not_know_is_found_by_the_providers_own_object(database: Database) -> None:
    house = BillingHouse(database)
    await house.user()
    house.gateway.put(subscription())
    event = house.event("invoice.paid")  # before anything else of this customer
    assert await deliver(house, event.id) is InboxState.DONE
    account = await house.account()
    assert (account.customer_id, account.access) == ("cus_1", Access.FULL)


@pytest.mark.gen_test(timeout=60)
async def test_a_checkout_names_its_user_too(database: Database) -> None:
    house = BillingHouse(database)
    await house.user()
    house.gateway.put(subscription(metadata={}))
    house.gateway.checkouts["cs_1"] = Checkout("cs_1", "complete", "paid", "cus_1", "sub_1", None, START, "usr_1")
    event = house.event("checkout.session.completed", subscription_id=None, checkout_id="cs_1")
    assert await deliver(house, event.id) is InboxState.DONE
    assert (await house.account()).access is Access.FULL


@pytest.mark.gen_test(timeout=60)
async def test_a_second_customer_cannot_take_over_an_account(database: Database) -> None:
    house = BillingHouse(database)
    await house.user()
    await house.subscribe()
    house.gateway.put(subscription("canceled", id="sub_x", customer_id="cus_x"))  # says that it is usr_1's
    event = house.event("customer.subscription.deleted", customer_id="cus_x", subscription_id="sub_x")
    assert await deliver(house, event.id) is InboxState.DONE
    assert await outcome(database, event.id) == "nobody"
    assert (await house.account()).customer_id == "cus_1"
    house.gateway.put(subscription(id="sub_y", customer_id="cus_y", metadata={"user_id": "usr_unknown"}))
    event = house.event("customer.subscription.created", customer_id="cus_y", subscription_id="sub_y")
    assert await deliver(house, event.id) is InboxState.DONE
    assert await outcome(database, event.id) == "nobody"


@pytest.mark.gen_test(timeout=60)
async def test_a_bank_that_wants_a_confirmation_is_told_of_while_the_invoice_is_open(database: Database) -> None:
    house = BillingHouse(database)
    await house.user()
    await house.subscribe(status="past_due", latest_invoice=invoice(created_at=START))
    event = house.event("invoice.payment_action_required", invoice_id="in_1")
    await deliver(house, event.id)
    assert await house.notices() == ["sub_1:payment_action_required:in_1", "sub_1:payment_failed:in_1"]
    await house.user(2)
    await house.subscribe(2, latest_invoice=invoice(status="paid"))
    await deliver(house, house.event("invoice.payment_action_required", 2, invoice_id="in_2").id)
    assert len(await house.notices()) == 2


@pytest.mark.gen_test(timeout=60)
async def test_a_page_that_expired_makes_room_for_the_next_order(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    await house.billing.service.checkout(ada, "builder", Interval.MONTH)
    (checkout_id,) = house.gateway.checkouts
    account = await house.account()
    event = house.event(
        "checkout.session.expired", customer_id=account.customer_id, subscription_id=None, checkout_id=checkout_id
    )
    assert await deliver(house, event.id) is InboxState.DONE
    assert await MongoOrderRepository(database).get(ada.user_id, OrderKind.CHECKOUT) is None


@pytest.mark.gen_test(timeout=60)
async def test_an_id_that_is_none_is_refused(database: Database) -> None:
    house = BillingHouse(database)
    house.event("invoice.paid", event_id="x" * 300)
    with pytest.raises(MalformedRequest) as refused:
        await deliver(house, "x" * 300)
    assert refused.value.stable_code == "not_an_event"
