"""Billing over HTTP, with the fake Stripe as a real process and its events arriving by themselves."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from controlplane.models import InstanceKind
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.billing_samples import START
from tests.fake_provisioning import FakeProvider
from tests.fakes import FakeClock
from tests.stripe_house import StripeHouse

pytestmark = pytest.mark.timeout(120)
FEWER_BACKUPS = [
    (
        "An instance may then have 10 backups, now 30: those that are there stay, and new ones can be made once there "
        "are fewer."
    )
]
ORDERS = ("/checkout", "/upgrade", "/downgrade", "/cancel", "/resume", "/portal")


def body_of(path: str) -> dict[str, str] | None:
    return None if path in ("/cancel", "/resume", "/portal") else {"planId": "starter"}


@pytest.mark.gen_test(timeout=110)
async def test_without_a_key_billing_is_off_and_says_so(database: Database) -> None:
    async with ApiHouse(database) as house:
        for method, path in (
            ("GET", ""),
            ("GET", "/plans"),
            ("GET", "/invoices"),
            *(("POST", each) for each in ORDERS),
        ):
            answer = await house.call(
                method, f"/api/billing{path}", body_of(path) if method == "POST" else None, token=house.ada_token
            )
            assert (answer.status, answer.code) == (409, "billing_disabled"), path
        answer = await house.call("POST", "/api/billing/webhook", raw=b"{}")
        assert answer.code == "billing_disabled"


@pytest.mark.gen_test(timeout=110)
async def test_plans_are_public_and_show_true_prices(database: Database) -> None:
    async with StripeHouse(database) as shop:
        answer = await shop.house.call("GET", "/api/billing/plans")
        assert answer.status == 200
        assert [plan["id"] for plan in answer.body["items"]] == ["starter", "builder", "studio"]
        starter = answer.body["items"][0]
        assert starter["prices"] == {
            "month": {"amount": 900, "currency": "eur"},
            "year": {"amount": 9000, "currency": "eur"},
        }
        assert starter["entitlements"] == {
            "gameServers": 1, "devContainers": 0, "memoryMib": 2048, "backups": 3, "ide": False,
        }  # fmt: skip


@pytest.mark.gen_test(timeout=110)
async def test_buying_a_plan_gives_what_it_entitles_to(database: Database) -> None:
    async with StripeHouse(database) as shop:
        assert (await shop.state())["access"] == "none"
        await shop.buy("builder")
        state = await shop.state()
        assert (state["access"], state["status"], state["plan"]["id"]) == ("full", "active", "builder")
        assert state["entitlements"]["gameServers"] == 3
        assert state["price"] == {"amount": 2900, "currency": "eur"}
        assert set((await shop.inbox()).values()) == {"done"}
        invoices = await shop.ask("GET", "/invoices")
        assert [(each["status"], each["amountPaid"]) for each in invoices.body["items"]] == [("paid", 2900)]
        assert (await shop.state(shop.house.bob_token))["access"] == "none"
        assert (await shop.ask("GET", "/invoices", token=shop.house.bob_token)).body["items"] == []


@pytest.mark.gen_test(timeout=110)
async def test_a_first_plan_with_a_trial_is_free_at_first(database: Database) -> None:
    async with StripeHouse(database) as shop:
        await shop.buy("starter")
        state = await shop.state()
        assert (state["access"], state["status"]) == ("full", "trialing")
        assert state["trialEnd"] is not None


@pytest.mark.gen_test(timeout=110)
async def test_the_same_order_many_times_is_one_checkout_of_one_customer(database: Database) -> None:
    async with StripeHouse(database) as shop:
        answers = await asyncio.gather(
            *(shop.ask("POST", "/checkout", {"planId": "builder"}, **{"Idempotency-Key": f"k{n}"}) for n in range(8)),
        )
        assert {answer.status for answer in answers} == {201}
        assert len({answer.body["url"] for answer in answers}) == 1
        objects = shop.stripe.state()["objects"]
        assert (objects["customer"], objects["checkout.session"]) == (1, 1)


@pytest.mark.gen_test(timeout=110)
async def test_an_order_whose_process_died_before_its_answer_was_stored_is_found_again(database: Database) -> None:
    async with StripeHouse(database) as shop:
        first = await shop.checkout("builder")
        await database.collection("billing_orders").update_many({}, {"$set": {"result": None}})
        assert await shop.checkout("builder") == first
        assert shop.stripe.state()["objects"]["checkout.session"] == 1


@pytest.mark.gen_test(timeout=110)
async def test_an_order_for_another_plan_closes_the_first_page(database: Database) -> None:
    async with StripeHouse(database) as shop:
        first = await shop.checkout("starter")
        second = await shop.checkout("builder")
        assert first != second
        with pytest.raises(AssertionError):
            await shop.control(f"checkout/{first}", {"outcome": "pay"})
        await shop.control(f"checkout/{second}", {"outcome": "pay"})
        await shop.settle()
        assert (await shop.state())["plan"]["id"] == "builder"
        answer = await shop.ask("POST", "/checkout", {"planId": "studio"})
        assert (answer.status, answer.code) == (409, "already_subscribed")


@pytest.mark.gen_test(timeout=110)
async def test_who_has_paid_cannot_order_again_though_no_event_has_come(database: Database) -> None:
    async with StripeHouse(database) as shop:
        await shop.control("webhooks", {"hold": True})
        await shop.control(f"checkout/{await shop.checkout('builder')}", {"outcome": "pay"})
        answer = await shop.ask("POST", "/checkout", {"planId": "builder"})
        assert (answer.status, answer.code) == (409, "already_subscribed")
        assert (await shop.state())["access"] == "full"


@pytest.mark.gen_test(timeout=110)
async def test_an_upgrade_costs_what_was_shown_and_is_there_at_once(database: Database) -> None:
    async with StripeHouse(database) as shop:
        await shop.buy("builder")
        preview = (await shop.ask("GET", "/preview?planId=studio")).body
        assert preview["change"] == "upgrade"
        body = {"planId": "studio", "proratedAt": preview["proratedAt"]}
        answers = await asyncio.gather(*(shop.ask("POST", "/upgrade", body) for _ in range(4)))
        assert {(answer.status, answer.body["plan"]["id"]) for answer in answers} == {(200, "studio")}
        await shop.settle()
        paid = [each["amountPaid"] for each in (await shop.ask("GET", "/invoices")).body["items"]]
        assert paid == [preview["amountDue"], 2900]
        answer = await shop.ask("POST", "/upgrade", {"planId": "builder"})
        assert (answer.status, answer.code) == (409, "not_an_upgrade")


@pytest.mark.gen_test(timeout=110)
async def test_an_upgrade_that_is_not_paid_grants_nothing_and_says_where_to_pay(database: Database) -> None:
    async with StripeHouse(database) as shop:
        await shop.buy("builder")
        await shop.control("cards", {"outcome": "decline", "times": 1})
        answer = await shop.ask("POST", "/upgrade", {"planId": "studio"})
        assert answer.status == 200, answer.raw
        assert answer.body["plan"]["id"] == "builder"
        assert answer.body["pendingChange"]["kind"] == "upgrade_awaits_payment"
        assert answer.body["payUrl"]
        again = await shop.ask("POST", "/upgrade", {"planId": "studio"})
        assert again.body["payUrl"] == answer.body["payUrl"]
        invoice_id = (await shop.ask("GET", "/invoices")).body["items"][0]["id"]
        await shop.control(f"pay-invoice/{invoice_id}")
        await shop.settle()
        state = await shop.state()
        assert (state["plan"]["id"], state["pendingChange"], state["payUrl"]) == ("studio", None, None)


@pytest.mark.gen_test(timeout=110)
async def test_a_downgrade_comes_with_the_next_period_and_can_be_taken_back(database: Database) -> None:
    async with StripeHouse(database, clock=FakeClock(START)) as shop:
        await shop.buy("studio")
        answer = await shop.ask("POST", "/downgrade", {"planId": "builder"})
        assert answer.status == 200, answer.raw
        assert answer.body["plan"]["id"] == "studio"
        assert answer.body["pendingChange"] == {
            "kind": "downgrade", "planId": "builder", "at": answer.body["periodEnd"], "consequences": FEWER_BACKUPS,
        }  # fmt: skip
        preview = (await shop.ask("GET", "/preview?planId=builder")).body
        assert preview == {"change": "downgrade", "consequences": FEWER_BACKUPS}
        assert (await shop.ask("POST", "/resume")).body["pendingChange"] is None
        assert (await shop.ask("POST", "/resume")).code == "nothing_to_resume"
        await shop.ask("POST", "/downgrade", {"planId": "builder"})
        await shop.advance(days=32)
        await shop.settle()
        state = await shop.state()
        assert (state["plan"]["id"], state["pendingChange"]) == ("builder", None)


@pytest.mark.gen_test(timeout=110)
async def test_a_downgrade_below_the_present_use_is_refused_with_names(database: Database) -> None:
    async with StripeHouse(database) as shop:
        await shop.buy("builder")
        await shop.house.instance(shop.house.ada, kind=InstanceKind.DEV)
        answer = await shop.ask("POST", "/downgrade", {"planId": "starter"})
        assert (answer.status, answer.code) == (409, "use_exceeds_plan")
        assert answer.body["details"] == {
            "problems": ["1 dev containers (instance 101), where the plan allows 0"],
            "exceeds": [{"limit": "devContainers", "allowed": 0, "used": 1, "instances": ["instance 101"]}],
        }
        assert shop.calls("POST", "/v1/subscription_schedules") == 0


@pytest.mark.gen_test(timeout=110)
async def test_until_a_downgrade_comes_nothing_is_made_that_would_not_fit_into_it(database: Database) -> None:
    server = {"name": "Big", "plan": "large"}
    async with StripeHouse(database, provider=FakeProvider(port=9), PROVISION_BOOT_SECONDS="0.1") as shop:
        await shop.buy("builder")
        await shop.ask("POST", "/downgrade", {"planId": "starter"})
        refused = await shop.house.call("POST", "/api/game/servers", server, token=shop.house.ada_token)
        assert (refused.status, refused.code) == (409, "exceeds_coming_plan")
        assert refused.body["details"]["comingPlan"] == "Starter"
        assert refused.body["details"]["memoryLimitMib"] == 2048
        await shop.ask("POST", "/resume")
        asked = await shop.house.call("POST", "/api/game/servers", server, token=shop.house.ada_token)
        assert asked.status == 202, asked.raw


@pytest.mark.gen_test(timeout=110)
async def test_what_exceeds_the_plan_once_it_is_there_stays_and_is_told(database: Database) -> None:
    async with StripeHouse(database, clock=FakeClock(START)) as shop:
        await shop.buy("builder")
        await shop.ask("POST", "/downgrade", {"planId": "starter"})
        for _ in range(2):
            await shop.house.instance(shop.house.ada)  # by an administrator
        assert (await shop.state())["exceeds"] == []
        await shop.advance(days=32)
        await shop.settle()
        state = await shop.state()
        assert (state["plan"]["id"], state["access"]) == ("starter", "full")
        assert state["exceeds"] == [
            {"limit": "gameServers", "allowed": 1, "used": 2, "instances": ["instance 101", "instance 102"]}
        ]
        listed = (await shop.house.call("GET", "/api/game/servers", token=shop.house.ada_token)).body["items"]
        assert [each["state"]["suspension"] for each in listed] == [None, None]


@pytest.mark.gen_test(timeout=110)
async def test_a_cancellation_keeps_everything_until_the_period_ends(database: Database) -> None:
    async with StripeHouse(database, clock=FakeClock(START)) as shop:
        await shop.buy("builder")
        answer = await shop.ask("POST", "/cancel")
        assert answer.body["pendingChange"]["kind"] == "end"
        assert answer.body["access"] == "full"
        assert (await shop.ask("POST", "/cancel")).status == 200
        assert (await shop.ask("POST", "/downgrade", {"planId": "starter"})).code == "cancellation_pending"
        assert (await shop.ask("POST", "/resume")).body["pendingChange"] is None
        await shop.ask("POST", "/cancel")
        await shop.advance(days=32)
        await shop.settle()
        state = await shop.state()
        assert (state["access"], state["status"], state["entitlements"]) == ("none", "canceled", None)
        assert (await shop.ask("POST", "/cancel")).code == "no_subscription"
        await shop.buy("starter")
        assert (await shop.state())["status"] == "active"  # no second trial


@pytest.mark.gen_test(timeout=110)
async def test_the_portal_opens_for_customers_alone(database: Database) -> None:
    async with StripeHouse(database) as shop:
        assert (await shop.ask("POST", "/portal")).code == "no_customer"
        await shop.buy("builder")
        answer = await shop.ask("POST", "/portal")
        assert answer.status == 201
        assert answer.body["url"].startswith("http")


@pytest.mark.gen_test(timeout=110)
async def test_administrators_are_exempt_and_the_provider_is_not_asked(database: Database) -> None:
    async with StripeHouse(database) as shop:
        token = shop.house.root_token
        reads = ("", "/invoices", "/preview?planId=studio")
        for method, path in (*(("GET", each) for each in reads), *(("POST", each) for each in ORDERS)):
            answer = await shop.ask(method, path, body_of(path) if method == "POST" else None, token)
            assert answer.status == 200, path
            assert answer.body["exempt"] is True, path
        assert shop.stripe.requests() == []


@pytest.mark.gen_test(timeout=110)
async def test_unknown_plans_and_moments_are_refused_by_name(database: Database) -> None:
    async with StripeHouse(database) as shop:
        answer = await shop.ask("POST", "/checkout", {"planId": "huge"})
        assert answer.body["details"]["fields"] == {"planId": ["is none of starter, builder, studio"]}
        answer = await shop.ask("POST", "/upgrade", {"planId": "studio", "proratedAt": "yesterday, at noon!!"})
        assert list(answer.body["details"]["fields"]) == ["proratedAt"]
        old = (shop.house.services.clock.now() - timedelta(days=1)).isoformat()
        answer = await shop.ask("POST", "/upgrade", {"planId": "studio", "proratedAt": old})
        assert list(answer.body["details"]["fields"]) == ["proratedAt"]


@pytest.mark.gen_test(timeout=110)
async def test_one_customer_cannot_use_up_the_provider_for_all(database: Database) -> None:
    async with StripeHouse(database) as shop:
        await shop.checkout()
        answers = await asyncio.gather(*(shop.ask("POST", "/portal") for _ in range(25)))
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        assert (await shop.ask("POST", "/portal", token=shop.house.bob_token)).code == "no_customer"


@pytest.mark.gen_test(timeout=110)
async def test_while_stripe_is_away_orders_are_told_and_reads_go_on(database: Database) -> None:
    async with StripeHouse(database) as shop:
        await shop.buy("builder")
        await shop.control("mischief", {"kind": "error", "status": 500, "times": None})
        answer = await shop.ask("POST", "/cancel")
        assert (answer.status, answer.code) == (503, "payment_unavailable")
        assert answer.headers["Retry-After"]
        assert (await shop.state())["access"] == "full"
