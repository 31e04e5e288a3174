"""Prices are asked for now and then, and what cannot be sold is not shown with a price."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.billing.price_list import FRESH_SECONDS, RETRY_SECONDS, PriceList
from controlplane.billing.records import Price
from tests.billing_samples import example_plans
from tests.fake_gateway import FakeGateway
from tests.fakes import FakeClock

PLANS = example_plans()


def priced() -> FakeGateway:
    gateway = FakeGateway()
    for plan in PLANS.plans:
        for interval, price_id in plan.prices.items():
            gateway.prices[price_id] = Price(price_id, 900, "eur", interval.value)
    return gateway


@pytest.mark.gen_test(timeout=60)
async def test_many_who_look_at_once_are_one_question_until_it_is_old() -> None:
    gateway, clock = priced(), FakeClock()
    prices = PriceList(gateway, PLANS, clock)
    for answer in await asyncio.gather(*(prices.all() for _ in range(20))):
        assert len(answer) == 6
    assert gateway.count("retrieve_price") == 6
    clock.advance(FRESH_SECONDS)
    await prices.all()
    assert gateway.count("retrieve_price") == 12


@pytest.mark.gen_test(timeout=60)
async def test_while_the_provider_is_away_the_former_prices_are_shown_and_it_is_left_alone() -> None:
    gateway, clock = priced(), FakeClock()
    prices = PriceList(gateway, PLANS, clock)
    await prices.all()
    gateway.is_away = True
    clock.advance(FRESH_SECONDS)
    for _ in range(5):
        assert len(await prices.all()) == 6
    assert gateway.count("retrieve_price") == 7
    gateway.is_away = False
    clock.advance(RETRY_SECONDS)
    await prices.all()
    assert gateway.count("retrieve_price") == 13


@pytest.mark.gen_test(timeout=60)
async def test_a_price_that_is_missing_off_sale_or_of_another_interval_is_not_shown() -> None:
    gateway = priced()
    del gateway.prices["price_starter_month"]
    gateway.prices["price_builder_month"] = replace(gateway.prices["price_builder_month"], is_active=False)
    gateway.prices["price_studio_month"] = replace(gateway.prices["price_studio_month"], interval="year")
    found = await PriceList(gateway, PLANS, FakeClock()).all()
    assert sorted(found) == ["price_builder_year", "price_starter_year", "price_studio_year"]
