"""A thousand events in no order, some twice, to two control planes, one of which is killed: as if one had read all."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from controlplane.billing.accounts import InboxState
from controlplane.billing.records import WebhookEvent
from controlplane.clock import SystemClock
from controlplane.models import Role, User
from controlplane.storage.billing_accounts import MongoBillingAccountRepository
from controlplane.storage.database import Database
from controlplane.storage.migrations import migrate
from controlplane.storage.users import MongoUserRepository
from controlplane.wiring.billing import make_gateway
from tests.billing_house import BillingHouse, settings
from tests.control_plane_process import SECRETS, ControlPlaneProcess
from tests.fake_stripe_process import API_KEY, FakeStripeProcess
from tests.stripe_house import PRICES, settings_for

pytestmark = pytest.mark.timeout(480)

CUSTOMERS = 26
MONTHS = 5
EVENTS = 1000
BEFORE_THE_KILL = 300
START = datetime.now(UTC) - timedelta(days=33 * MONTHS)


def api(stripe: FakeStripeProcess, path: str, **form: Any) -> Any:
    request = urllib.request.Request(
        f"{stripe.url}/v1/{path}",
        data=urlencode(form).encode(),
        headers={"Authorization": f"Bearer {API_KEY}", "Stripe-Version": "2026-10-28.endive"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{path}: {error.read().decode()}") from None


def make_history(stripe: FakeStripeProcess) -> int:
    """Months of buying, paying, failing, changing and leaving; how many events that makes."""
    stripe.control("webhooks", {"hold": True})
    customers, subscriptions = [], []
    for number in range(CUSTOMERS):
        customer = api(
            stripe,
            "customers",
            email=f"user{number}@example.org",
            **{"metadata[user_id]": f"usr_{number}", "invoice_settings[default_payment_method]": "pm_card_visa"},
        )
        made = api(
            stripe,
            "subscriptions",
            customer=customer["id"],
            **{"items[0][price]": "price_builder_month", "metadata[user_id]": f"usr_{number}"},
        )
        customers.append(customer["id"])
        subscriptions.append(made)
    for month in range(MONTHS):
        stripe.advance(days=33)
        for number in range(CUSTOMERS):
            if number % 5 == 1 and month == number % MONTHS:
                stripe.control("cards", {"customer": customers[number], "outcome": "decline"})
            if number % 5 == 2 and month == 2:
                item = subscriptions[number]["items"]["data"][0]["id"]
                api(
                    stripe,
                    f"subscriptions/{subscriptions[number]['id']}",
                    **{"items[0][id]": item, "items[0][price]": "price_studio_month"},
                )
            if number % 5 == 3 and month == number % MONTHS:
                api(stripe, f"subscriptions/{subscriptions[number]['id']}", cancel_at_period_end="true")
    return sum(stripe.state()["events"].values())


async def add_users(database: Database) -> None:
    users = MongoUserRepository(database)
    for number in range(CUSTOMERS):
        await users.add(User(f"usr_{number}", f"user{number}@example.org", "x", Role.CUSTOMER, START, START))


async def entitlements(database: Database) -> dict[str, Any]:
    accounts = MongoBillingAccountRepository(database)
    found = {}
    for each in await accounts.page(limit=2 * CUSTOMERS, after=None):
        status = None if each.subscription is None else each.subscription.status
        found[each.user_id] = (each.access.value, each.plan_id, status, each.past_due_since)
    return found


async def replay(database: Database, stripe: FakeStripeProcess) -> dict[str, Any]:
    """Every event once, in the order in which they happened, by one who does nothing else."""
    gateway = make_gateway(settings(stripe_api_base=stripe.url))
    house = BillingHouse(database, gateway=gateway, clock=SystemClock())  # type: ignore[arg-type]
    await add_users(database)
    events: list[WebhookEvent] = []
    after = None
    while True:
        page = await gateway.list_events_since(START - timedelta(days=1), after=after)
        events += page.items
        after = page.next_after
        if after is None:
            break
    for event in reversed(events):
        assert await house.billing.inbox.receive_missed(event) is InboxState.DONE
    await gateway.close()
    return await entitlements(database)


@pytest.mark.gen_test(timeout=450)
async def test_a_killed_process_and_shuffled_doubled_events_end_as_a_plain_replay_does(
    database: Database, mongodb_uri: str
) -> None:
    plain = Database(mongodb_uri, f"{database.name}_replay", timeout_seconds=5)
    with FakeStripeProcess("--freeze-at", str(int(START.timestamp())), prices=PRICES) as stripe:
        environment = {
            **SECRETS,
            **settings_for(stripe),
            "HTTP_PORT": "0",
            "MONGODB_URI": mongodb_uri,
            "MONGODB_DATABASE": database.name,
        }
        await add_users(database)
        with ControlPlaneProcess("serve", **environment) as doomed, ControlPlaneProcess("serve", **environment) as heir:
            urls = [
                process.until_line(r"listening on (http://127\.0\.0\.1:\d+)").group(1) for process in (doomed, heir)
            ]
            events = await asyncio.to_thread(make_history, stripe)
            assert events >= EVENTS
            stripe.control(
                "webhooks",
                {
                    "urls": [f"{url}/api/billing/webhook" for url in urls],
                    "concurrency": 16,
                    "retrySeconds": [0.5, 1, 2, 4, 8, 8, 8, 16, 16],
                },
            )
            stripe.control("release", {"order": "shuffled", "seed": 11, "duplicateShare": 0.3})
            await asyncio.to_thread(until_delivered, stripe, BEFORE_THE_KILL)
            doomed.stop(signal.SIGKILL)
            stripe.control("webhooks", {"urls": [f"{urls[1]}/api/billing/webhook"]})
            assert (await asyncio.to_thread(stripe.control, "settle", {"seconds": 300}, seconds=330))["idle"]
        deliveries = stripe.deliveries()
        assert len(deliveries) >= events * 1.25
        assert {attempt["status"] for attempt in deliveries} >= {200}
        inbox = database.collection("billing_inbox")
        assert await inbox.count_documents({"state": "done"}) == events
        found = await entitlements(database)
        try:
            await migrate(plain)
            expected = await replay(plain, stripe)
        finally:
            await plain.handle.client.drop_database(plain.name)
            plain.close()
    assert len(found) == CUSTOMERS
    assert found == expected
    assert {access for access, *_ in found.values()} >= {"full", "none"}
    assert {plan for _, plan, *_ in found.values()} == {"builder", "studio"}


def until_delivered(stripe: FakeStripeProcess, count: int) -> None:
    ends = time.monotonic() + 120
    while len(stripe.deliveries()) < count:
        assert time.monotonic() < ends, "the events do not go out"
        time.sleep(0.1)
