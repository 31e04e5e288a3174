"""Events in any order, any number of times, and bodies that are none: the real route, the fake Stripe as a process."""

from __future__ import annotations

import hashlib
import hmac
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from controlplane.models import Role, User
from controlplane.storage.database import Database
from tests.api_house import PASSWORD
from tests.billing_samples import START
from tests.fake_stripe_process import API_KEY, WEBHOOK_SECRET
from tests.fakes import FakeClock
from tests.stripe_house import StripeHouse

pytestmark = pytest.mark.timeout(180)


# -- sequences ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Story:
    """One customer of 53 days, and how it ends. `restored` may be told besides, where the time between was seen."""

    buys_on_day: int = 0
    card_fails: bool = False
    pays_on_day_32: bool = False
    at_first: str | None = None
    access: str = "full"
    notices: tuple[str, ...] = ()

    @property
    def is_suspended(self) -> bool:
        return self.access == "none"


STORIES = {
    "pays": Story(),
    "has just failed": Story(buys_on_day=20, card_fails=True, access="grace", notices=("payment_failed",)),
    "never pays": Story(card_fails=True, access="none", notices=("suspended",)),
    "fails, then pays": Story(card_fails=True, pays_on_day_32=True),
    "cancels": Story(at_first="cancel", access="none", notices=("suspended",)),
    "is paused": Story(at_first="pause", access="none", notices=("suspended",)),
    "is deleted": Story(at_first="delete", access="none", notices=("suspended",)),
}

SeesSome = Callable[[StripeHouse], Awaitable[None]]


class Stories:
    """Every story at once, so that the events of each lie between those of the others."""

    def __init__(self, shop: StripeHouse, database: Database) -> None:
        self.shop = shop
        self._database = database
        self._users: dict[str, User] = {}
        self._customers: dict[str, str] = {}

    async def live(self, see: SeesSome) -> None:
        """`see` is called whenever something has happened."""
        shop = self.shop
        for number, name in enumerate(STORIES):
            user = await shop.house.services.sessions.create_user(f"u{number}@example.org", PASSWORD, Role.CUSTOMER)
            self._users[name] = user
            await shop.house.instance(user)
        await shop.control("webhooks", {"hold": True})
        await self._buy(0)
        await see(shop)
        for name, story in STORIES.items():
            await self._act(name, story.at_first)
        await shop.advance(days=20)
        await self._buy(20)
        await see(shop)
        await shop.advance(days=12)
        await see(shop)
        for name, story in STORIES.items():
            if story.pays_on_day_32:
                await shop.control("cards", {"customer": self._customers[name], "outcome": "succeed"})
                for invoice_id in await self._open_invoices(name):
                    await shop.control(f"pay-invoice/{invoice_id}")
        await see(shop)
        await shop.advance(days=21)

    async def _buy(self, day: int) -> None:
        for number, (name, story) in enumerate(STORIES.items()):
            if story.buys_on_day != day:
                continue
            token = await self.shop.house.token(f"u{number}@example.org")
            await self.shop.control(f"checkout/{await self.shop.checkout('builder', token=token)}", {"outcome": "pay"})
            account = await self.shop.accounts.get(self._users[name].id)
            assert account is not None
            assert account.customer_id is not None
            self._customers[name] = account.customer_id
            if story.card_fails:
                await self.shop.control("cards", {"customer": account.customer_id, "outcome": "decline"})

    async def _act(self, name: str, action: str | None) -> None:
        """What the operator does in Stripe's dashboard."""
        customer_id = self._customers.get(name, "")
        if action == "delete":
            await provider(self.shop, "DELETE", f"customers/{customer_id}")
        elif action is not None:
            listed = await provider(self.shop, "GET", f"subscriptions?status=all&customer={customer_id}")
            (subscription_id,) = [each["id"] for each in listed["data"]]
            if action == "pause":
                await self.shop.control(f"pause/{subscription_id}")
            else:
                await provider(self.shop, "POST", f"subscriptions/{subscription_id}", "cancel_at_period_end=true")

    async def _open_invoices(self, name: str) -> list[str]:
        listed = await provider(self.shop, "GET", f"invoices?limit=100&customer={self._customers[name]}")
        return [each["id"] for each in listed["data"] if each["status"] == "open"]

    async def endings(self) -> dict[str, tuple[str, bool, list[str]]]:
        """Access, whether the instance is suspended, and every notice."""
        operations = self._database.collection("operations")
        while await operations.count_documents({"is_finished": False}):
            await self.shop.house.plane.provisioning.runner.run_once()
        await self.shop.house.services.instances.sync()
        found = {}
        for name, user in self._users.items():
            account = await self.shop.accounts.get(user.id)
            assert account is not None
            assert account.applied_epoch == account.access_epoch, name
            (instance,) = [each for each in self.shop.house.services.instances.all() if each.owner_id == user.id]
            rows = await self._database.collection("billing_notices").find({"user_id": user.id}).to_list(None)
            kinds = sorted(row["kind"] for row in rows)
            found[name] = (account.access.value, instance.suspension is not None, kinds)
        return found


async def provider(shop: StripeHouse, method: str, path: str, form: str = "") -> Any:
    """A call of Stripe's API that is not ours."""
    request = HTTPRequest(
        f"{shop.stripe.url}/v1/{path}",
        method=method,
        body=form if method == "POST" else None,
        headers={"Authorization": f"Bearer {API_KEY}", "Stripe-Version": "2026-10-28.endive"},
    )
    client = SimpleAsyncHTTPClient(force_instance=True)
    try:
        return orjson.loads((await client.fetch(request)).body)
    finally:
        client.close()


async def see_nothing(_shop: StripeHouse) -> None:
    """All is held until the end."""


async def see_some(shop: StripeHouse) -> None:
    """A few events come out, some of them twice, in no order; the rest stays."""
    await shop.control("release", {"order": "shuffled", "seed": 3, "count": 4, "duplicateShare": 0.5})
    await shop.control("webhooks", {"hold": True})


async def see_all(shop: StripeHouse) -> None:
    await shop.control("release", {"order": "fifo"})
    await shop.settle()
    await shop.control("webhooks", {"hold": True})


@pytest.mark.parametrize(
    ("see", "release"),
    [
        (see_all, {"order": "fifo"}),
        (see_nothing, {"order": "fifo"}),
        (see_nothing, {"order": "reversed"}),
        (see_nothing, {"order": "shuffled", "seed": 7, "duplicateShare": 1.0}),
        (see_some, {"order": "reversed", "seed": 5, "duplicateShare": 0.3}),
    ],
    ids=["as they come", "late", "late and reversed", "late, shuffled and doubled", "old news between new states"],
)
@pytest.mark.gen_test(timeout=170)
async def test_events_end_in_the_same_state_however_they_come(
    database: Database, see: SeesSome, release: dict[str, Any]
) -> None:
    async with StripeHouse(database, clock=FakeClock(START)) as shop:
        stories = Stories(shop, database)
        await stories.live(see)
        await shop.control("release", release)
        await shop.settle()
        assert set((await shop.inbox()).values()) == {"done"}
        for name, (access, is_suspended, notices) in (await stories.endings()).items():
            story = STORIES[name]
            assert (name, access, is_suspended) == (name, story.access, story.is_suspended)
            assert len(notices) == len(set(notices)), name  # each kind once: nobody fails twice in these stories
            assert set(notices) >= set(story.notices), name
            if see is see_nothing:
                assert notices == list(story.notices), name


@pytest.mark.gen_test(timeout=110)
async def test_an_event_that_fails_is_a_500_and_is_done_when_it_comes_again(database: Database) -> None:
    async with StripeHouse(database) as shop:
        checkout = await shop.checkout("builder")
        await shop.control("mischief", {"kind": "error", "status": 500, "path": "/v1/subscriptions", "times": 9})
        await shop.control(f"checkout/{checkout}", {"outcome": "pay"})
        await shop.settle()
        statuses = {attempt["status"] for attempt in shop.stripe.deliveries()}
        assert statuses >= {200, 500}
        assert (await shop.state())["access"] == "full"
        assert set((await shop.inbox()).values()) == {"done"}


@pytest.mark.gen_test(timeout=110)
async def test_events_of_other_kinds_and_of_nobody_are_kept_and_acknowledged(database: Database) -> None:
    async with StripeHouse(database) as shop:
        for kind, of in (
            ("invented.tomorrow", {"id": "x_1", "object": "invention"}),
            ("customer.subscription.updated", {"id": "sub_x", "object": "subscription", "customer": "cus_nobody"}),
            ("customer.deleted", {"id": "cus_nobody", "object": "customer"}),
        ):
            await shop.control("emit", {"type": kind, "object": of})
        await shop.settle()
        assert {attempt["status"] for attempt in shop.stripe.deliveries()} == {200}
        rows = await database.collection("billing_inbox").find({}).to_list(None)
        assert sorted(row["outcome"] for row in rows) == ["kept", "nobody", "nobody"]


@pytest.mark.gen_test(timeout=110)
async def test_a_purchase_is_news_to_its_customer_alone(database: Database) -> None:
    async with StripeHouse(database) as shop:
        hub = shop.house.services.events
        ada = await shop.house.services.authenticator.authenticate(shop.house.ada_token)
        bob = await shop.house.services.authenticator.authenticate(shop.house.bob_token)
        ours, theirs = hub.subscribe(ada, None), hub.subscribe(bob, None)
        billing = shop.house.services.billing
        assert billing is not None
        await billing.news.run_once()
        await shop.buy("builder")
        await billing.news.run_once()
        news = [orjson.loads(each.data) for each in hub.read(ours, 100) if each.kind == "billing"]
        assert news[-1]["access"] == "full"
        assert news[-1]["planId"] == "builder"
        assert [each for each in hub.read(theirs, 100) if each.kind == "billing"] == []


# -- bodies that are not believed --------------------------------------------------------------------------------------

EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "customer.subscription.deleted",
    "created": 1767225600,
    "data": {"object": {"id": "sub_1", "object": "subscription", "customer": "cus_1"}},
}


def signed(body: bytes, *, at: float | None = None, secret: str = WEBHOOK_SECRET) -> str:
    moment = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


GOOD = orjson.dumps(EVENT)


def hostile() -> dict[str, tuple[bytes, str | None, str]]:
    """Body, signature and what it is called; signed now, since a signature ages."""
    return {
        "unsigned": (GOOD, None, "signature_missing"),
        "empty signature": (GOOD, "", "signature_missing"),
        "no signature": (GOOD, "hello", "signature_invalid"),
        "tampered": (GOOD.replace(b"sub_1", b"sub_2"), signed(GOOD), "signature_invalid"),
        "of another secret": (GOOD, signed(GOOD, secret="whsec_other"), "signature_invalid"),
        "stale": (GOOD, signed(GOOD, at=time.time() - 3600), "signature_expired"),
        "of the future": (GOOD, signed(GOOD, at=time.time() + 86_400), "signature_from_future"),
        "not UTF-8": (b'{"id": "\xff"}', signed(b'{"id": "\xff"}'), "not_utf8"),
        "not JSON": (b"{", signed(b"{"), "not_json"),
        "no event": (b"[]", signed(b"[]"), "not_an_event"),
        "an event without an id": (b'{"object": "event"}', signed(b'{"object": "event"}'), "not_an_event"),
        "empty": (b"", signed(b""), "not_json"),
    }


@pytest.mark.gen_test(timeout=110)
async def test_bodies_that_are_not_the_providers_are_refused_and_leave_a_number_alone(database: Database) -> None:
    refused_ones = hostile()
    async with StripeHouse(database) as shop:
        for name, (body, signature, code) in refused_ones.items():
            headers = {} if signature is None else {"Stripe-Signature": signature}
            answer = await shop.house.call("POST", "/api/billing/webhook", raw=body, headers=headers)
            assert (answer.status, answer.code) == (400, code), name
        assert await shop.inbox() == {}
        assert await database.collection("billing_accounts").count_documents({}) == 0
        refused = shop.house.services.metrics.billing_webhooks_refused
        counted = {
            sample.labels["reason"]: sample.value
            for metric in refused.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }
        assert sum(counted.values()) == len(refused_ones)
        assert counted["signature_invalid"] == 3


@pytest.mark.gen_test(timeout=110)
async def test_a_signature_that_is_no_ascii_is_refused(database: Database) -> None:
    async with StripeHouse(database) as shop:
        answer = await shop.house.call(
            "POST", "/api/billing/webhook", raw=GOOD, headers={"Stripe-Signature": "t=1,v1=ä"}
        )
        assert (answer.status, answer.code) == (400, "signature_invalid")


@pytest.mark.gen_test(timeout=110)
async def test_a_huge_body_is_refused_before_it_is_looked_at(database: Database) -> None:
    async with StripeHouse(database) as shop:
        for size in ((512 << 10) + 1, 4 << 20):
            body = random.Random(1).randbytes(size)
            answer = await shop.house.call(
                "POST", "/api/billing/webhook", raw=body, headers={"Stripe-Signature": signed(body)}
            )
            assert (answer.status, answer.code) == (413, "payload_too_large")
        large = orjson.dumps({**EVENT, "padding": "x" * (400 << 10)})
        answer = await shop.house.call(
            "POST", "/api/billing/webhook", raw=large, headers={"Stripe-Signature": signed(large)}
        )
        assert answer.status == 200
        assert list(await shop.inbox()) == ["evt_1"]


@pytest.mark.gen_test(timeout=110)
async def test_an_event_does_not_grant_what_it_says(database: Database) -> None:
    """Signed, but the provider's own answer is what counts."""
    async with StripeHouse(database) as shop:
        await shop.buy("builder")
        account = await shop.account()
        assert account.subscription is not None
        told = {"id": account.subscription.id, "object": "subscription", "customer": account.customer_id}
        await shop.control("emit", {"type": "customer.subscription.deleted", "object": {**told, "status": "canceled"}})
        await shop.settle()
        assert (await shop.state())["access"] == "full"
