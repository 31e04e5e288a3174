"""A payment provider that takes its time holds up those who order, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.billing.stripe_http import REQUESTS_AT_ONCE
from controlplane.models import Role
from controlplane.storage.database import Database
from tests.api_house import PASSWORD
from tests.refagent_process import until
from tests.stripe_house import StripeHouse

pytestmark = pytest.mark.timeout(120)
CUSTOMERS = REQUESTS_AT_ONCE + 8


@pytest.mark.gen_test(timeout=110)
async def test_while_stripe_is_slow_orders_wait_and_everything_else_is_answered(database: Database) -> None:
    async with StripeHouse(database) as shop:
        house = shop.house
        instance = await house.instance(house.ada)
        tokens = []
        for number in range(CUSTOMERS):
            await house.services.sessions.create_user(f"c{number}@example.org", PASSWORD, Role.CUSTOMER)
            tokens.append(await house.token(f"c{number}@example.org"))
        await shop.control("mischief", {"kind": "slow", "seconds": 600, "times": None})
        orders = [asyncio.create_task(shop.ask("POST", "/checkout", {"planId": "builder"}, token)) for token in tokens]

        async def all_are_held() -> bool:
            state = await asyncio.to_thread(shop.stripe.state)
            return bool(state["slow"] == REQUESTS_AT_ONCE)

        await until(all_are_held)
        for _ in range(20):
            listed = await house.call("GET", "/api/game/servers", token=house.ada_token)
            assert [each["id"] for each in listed.body["items"]] == [instance.id]
        for method, path, body, token in (
            ("GET", "/healthz", None, None),
            ("GET", "/api/billing", None, tokens[0]),  # of one whose order waits
            ("GET", f"/api/game/servers/{instance.id}/state", None, house.ada_token),
            ("POST", "/api/auth/login", {"email": "ada@example.org", "password": PASSWORD}, None),  # writes
            ("PATCH", f"/api/admin/instances/{instance.id}", {"name": "Renamed"}, house.root_token),
        ):
            answer = await house.call(method, path, body, token=token)
            assert answer.status == 200, (path, answer.raw)
        ready = (await house.call("GET", "/readyz")).body
        assert set(ready["failed"]) <= {"loopLag"}, ready  # of a machine that held this process up
        assert not any(order.done() for order in orders)
        await shop.no_more_mischief()
        answers = await asyncio.gather(*orders)
        assert [answer.status for answer in answers] == [201] * CUSTOMERS
        assert len({answer.body["url"] for answer in answers}) == CUSTOMERS
