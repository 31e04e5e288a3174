"""Orders: each is one call at the provider, however often it is asked for and whatever fails on the way."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.billing.accounts import OrderKind
from controlplane.billing.records import Interval, Schedule
from controlplane.errors import Conflict, Overloaded, PaymentRefused, PaymentUnavailable
from controlplane.models import Holding, InstanceKind, Principal
from controlplane.storage.billing_orders import MongoOrderRepository
from controlplane.storage.database import Database
from tests.billing_house import BillingHouse
from tests.billing_samples import invoice, subscription

MONTH = Interval.MONTH


def keys(house: BillingHouse, method: str) -> set[str | None]:
    return {key for called, key in house.gateway.calls if called == method}


@pytest.mark.gen_test(timeout=60)
async def test_a_customer_is_made_once_however_many_ask_in_however_many_processes(database: Database) -> None:
    first = BillingHouse(database)
    ada = await first.user()
    second = BillingHouse(database, owner="second", gateway=first.gateway, clock=first.clock)
    urls = await asyncio.gather(
        *(house.billing.service.checkout(ada, "builder", MONTH) for house in (first, second) for _ in range(5))
    )
    assert len(set(urls)) == 1
    assert first.gateway.count("create_customer") == 1
    assert len(keys(first, "create_checkout")) == 1


@pytest.mark.gen_test(timeout=60)
async def test_an_order_whose_answer_was_lost_is_the_same_order_again(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    house.gateway.loses_answers = True
    with pytest.raises(PaymentUnavailable):
        await house.billing.service.checkout(ada, "builder", MONTH)
    house.gateway.loses_answers = False
    house.gateway.before_answer = lambda method: setattr(
        house.gateway, "loses_answers", method == "create_checkout" and house.gateway.count(method) == 1
    )
    with pytest.raises(PaymentUnavailable):
        await house.billing.service.checkout(ada, "builder", MONTH)
    await house.billing.service.checkout(ada, "builder", MONTH)
    assert len(keys(house, "create_customer")) == 1
    assert len(keys(house, "create_checkout")) == 1
    assert len(house.gateway.checkouts) == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_key_is_stored_before_its_call_is_made(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    stored: dict[str, asyncio.Task[object]] = {}
    orders = MongoOrderRepository(database)
    kinds = {"create_customer": OrderKind.CUSTOMER, "create_checkout": OrderKind.CHECKOUT}

    def look(method: str) -> None:
        if method in kinds:
            stored[method] = asyncio.ensure_future(orders.get(ada.user_id, kinds[method]))

    house.gateway.before_answer = look
    house.gateway.is_away = True
    with pytest.raises(PaymentUnavailable):
        await house.billing.service.checkout(ada, "builder", MONTH)
    order = await stored["create_customer"]
    assert getattr(order, "key", None) in keys(house, "create_customer")


@pytest.mark.gen_test(timeout=60)
async def test_after_a_refusal_the_next_order_is_a_new_one(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    await house.subscribe()
    refusal = PaymentRefused("No.", operator_message="card_declined", reason="card_declined")
    house.gateway.before_answer = lambda method: house.gateway.failures.extend(
        [refusal] if method == "change_subscription_now" and house.gateway.count(method) == 1 else []
    )
    with pytest.raises(PaymentRefused):
        await house.billing.service.upgrade(ada.user_id, "studio", MONTH, prorated_at=None)
    account = await house.billing.service.upgrade(ada.user_id, "studio", MONTH, prorated_at=None)
    assert account.plan_id == "studio"
    assert len(keys(house, "change_subscription_now")) == 2


@pytest.mark.gen_test(timeout=60)
async def test_an_upgrade_that_went_through_unheard_is_not_made_again(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    await house.subscribe()
    house.gateway.loses_answers = True
    with pytest.raises(PaymentUnavailable):
        await house.billing.service.upgrade(ada.user_id, "studio", MONTH, prorated_at=None)
    account = await house.billing.service.upgrade(ada.user_id, "studio", MONTH, prorated_at=None)
    assert account.plan_id == "studio"
    assert house.gateway.count("change_subscription_now") == 1


@pytest.mark.gen_test(timeout=60)
async def test_an_old_order_is_not_taken_up_again(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    await house.subscribe()
    house.gateway.before_answer = lambda method: setattr(
        house.gateway, "is_away", method == "set_cancel_at_period_end" and house.gateway.count(method) <= 2
    )
    for hours in (1, 24):
        with pytest.raises(PaymentUnavailable):
            await house.billing.service.cancel(ada.user_id)
        house.clock.advance(3600 * hours)
    await house.billing.service.cancel(ada.user_id)
    made = [key for called, key in house.gateway.calls if called == "set_cancel_at_period_end"]
    assert made[0] == made[1] != made[2]


@pytest.mark.gen_test(timeout=60)
async def test_an_open_payment_comes_before_an_upgrade(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    await house.subscribe(status="past_due", latest_invoice=invoice())
    with pytest.raises(Conflict) as refused:
        await house.billing.service.upgrade(ada.user_id, "studio", MONTH, prorated_at=None)
    assert refused.value.stable_code == "payment_due"
    assert refused.value.details == {"payUrl": "https://pay.example/in_1"}
    assert house.gateway.count("change_subscription_now") == 0


@pytest.mark.parametrize(
    ("present", "call", "code"),
    [
        ("starter", lambda s, u: s.downgrade(u, "studio", MONTH), "not_a_downgrade"),
        ("studio", lambda s, u: s.upgrade(u, "starter", MONTH, prorated_at=None), "not_an_upgrade"),
        ("studio", lambda s, u: s.downgrade(u, "studio", MONTH), "not_a_downgrade"),
        ("studio", lambda s, u: s.resume(u), "nothing_to_resume"),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_what_makes_no_sense_is_refused_without_a_change(
    database: Database, present: str, call: object, code: str
) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    await house.subscribe(price_id=f"price_{present}_month")
    with pytest.raises(Conflict) as refused:
        await call(house.billing.service, ada.user_id)  # type: ignore[operator]
    assert refused.value.stable_code == code
    assert {method for method, key in house.gateway.calls if key is not None} == set()


@pytest.mark.gen_test(timeout=60)
async def test_an_attached_schedule_is_released_before_an_upgrade_or_a_cancellation(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    for order in (
        house.billing.service.upgrade(ada.user_id, "studio", MONTH, prorated_at=None),
        house.billing.service.cancel(ada.user_id),
    ):
        await house.subscribe(schedule=Schedule("sched_1", "active", ()))
        house.gateway.calls.clear()
        await order
        methods = [method for method, key in house.gateway.calls if key is not None]
        assert methods[0] == "release_schedule"
        assert len(methods) == 2


@pytest.mark.gen_test(timeout=60)
async def test_nobody_waits_for_an_account_without_end(database: Database) -> None:
    house = BillingHouse(database)
    ada: Principal = await house.user()
    await house.subscribe()
    waiting = [asyncio.ensure_future(house.billing.service.cancel(ada.user_id)) for _ in range(40)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    refused = [each for each in results if isinstance(each, Overloaded)]
    assert len(refused) == 20
    assert house.gateway.count("set_cancel_at_period_end") == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_subscription_that_ended_may_be_followed_by_another(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    made = await house.subscribe()
    house.gateway.put(replace(made, status="canceled"))
    assert await house.billing.service.checkout(ada, "builder", MONTH)
    with pytest.raises(Conflict) as refused:
        await house.billing.service.cancel(ada.user_id)
    assert refused.value.stable_code == "no_subscription"


@pytest.mark.gen_test(timeout=60)
async def test_a_downgrade_is_held_to_every_limit_and_to_what_is_being_made(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    await house.instance(ada, "mine")
    await house.subscribe(price_id="price_builder_month")
    house.effects.being_made = [Holding(InstanceKind.GAME, "coming", 4096)]
    with pytest.raises(Conflict) as refused:
        await house.billing.service.downgrade(ada.user_id, "starter", MONTH)
    assert refused.value.stable_code == "use_exceeds_plan"
    assert refused.value.message == (
        "What you have does not fit into Starter: 2 game servers (coming, mine), where the plan allows 1; more memory "
        "than the 2048 MiB that the plan allows an instance (coming has 4096 MiB). Delete what is too much first."
    )
    assert refused.value.details is not None
    assert refused.value.details["exceeds"] == [
        {"limit": "gameServers", "allowed": 1, "used": 2, "instances": ["coming", "mine"]},
        {"limit": "memoryMib", "allowed": 2048, "used": 4096, "instances": ["coming"]},
    ]
    assert house.gateway.count("schedule_downgrade") == 0
    house.effects.being_made = []
    await house.billing.service.downgrade(ada.user_id, "starter", MONTH)
    assert house.gateway.count("schedule_downgrade") == 1


@pytest.mark.gen_test(timeout=60)
async def test_another_interval_of_the_same_plan_takes_nothing_and_is_not_refused(database: Database) -> None:
    house = BillingHouse(database)
    ada = await house.user()
    for name in ("one", "two"):
        await house.instance(ada, name)  # an administrator's gift
    year = subscription(price_id="price_starter_year").items[0]
    await house.subscribe(items=(replace(year, price=replace(year.price, interval="year")),))
    await house.billing.service.downgrade(ada.user_id, "starter", MONTH)
    assert house.gateway.count("schedule_downgrade") == 1
    (excess,) = house.billing.service.exceeding(await house.account())
    assert (excess.limit, excess.allowed, excess.used) == ("gameServers", 1, 2)
