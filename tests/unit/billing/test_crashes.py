"""A process that dies at any step of acting on an event leaves nothing that another does not finish, and once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from controlplane.billing.accounts import Access, InboxState
from controlplane.models import Principal
from controlplane.storage.billing_inbox import MongoInboxRepository
from controlplane.storage.database import Database
from tests.billing_house import BillingHouse
from tests.billing_samples import invoice

STEPS_AT_MOST = 80
WITHIN = ("controlplane.billing", "controlplane.turns")


class Death(BaseException):
    """The process is gone: nothing that it would still do happens."""


class Mortal:
    """Stands before an adapter; the call that `life` does not cover, and every one after it, never happens."""

    def __init__(self, inner: Any, life: list[int], *, takes_effect: bool) -> None:
        self._inner = inner
        self._life = life
        self._takes_effect = takes_effect

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*given: Any, **named: Any) -> Any:
            self._life[0] -= 1
            if self._life[0] < 0 or (self._life[0] == 0 and not self._takes_effect):
                self._life[0] = -1
                raise Death
            answer = await found(*given, **named)
            if self._life[0] == 0:  # it was done, and nobody heard of it
                raise Death
            return answer

        return call


def make_mortal(house: BillingHouse, life: list[int], *, takes_effect: bool) -> None:
    """Every adapter of this house's billing dies with it."""
    billing = house.billing
    seen: set[int] = set()
    waiting: list[Any] = [billing.inbox, billing.scheduler, billing.notices]
    adapters = ("_leases", "_accounts", "_inbox", "_orders", "_notices", "_gateway", "_effects", "_users", "_mailer")
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        for name, value in vars(part).items():
            if not type(value).__module__.startswith(("controlplane", "tests")) or isinstance(value, Mortal):
                continue
            is_adapter = name in adapters and type(value).__module__.split(".")[1] != "billing"
            if is_adapter:
                setattr(part, name, Mortal(value, life, takes_effect=takes_effect))
            elif type(value).__module__.startswith(WITHIN) and hasattr(value, "__dict__"):
                waiting.append(value)


async def let_leases_end(database: Database) -> None:
    """As if the dead one's time had passed."""
    await database.collection("leases").update_many({}, {"$set": {"expires_ms": 0}})
    for name in ("billing_inbox", "billing_notices"):
        await database.collection(name).update_many({}, {"$set": {"lease_ms": 0, "due_ms": 0}})


Act = Callable[[BillingHouse], Awaitable[Any]]


async def until_it_survives(
    database: Database, make: Callable[[Database], Awaitable[BillingHouse]], act: Act, *, takes_effect: bool
) -> int:
    """Dies at each step in turn, each time from the same beginning; how many deaths there were."""
    for step in range(1, STEPS_AT_MOST):
        await forget_everything(database)
        survivor = await make(database)
        doomed = BillingHouse(database, owner="doomed", gateway=survivor.gateway, clock=survivor.clock)
        doomed.mailer = survivor.mailer
        doomed.billing.notices._mailer = survivor.mailer  # the same mail server
        doomed.effects.keys = survivor.effects.keys
        await doomed.directory.load()
        life = [step]
        make_mortal(doomed, life, takes_effect=takes_effect)
        try:
            await act(doomed)
        except Death:
            died = True
        else:
            died = life[0] < 0
        await let_leases_end(database)
        await survivor.directory.sync()
        await act(survivor)
        await assert_suspended_and_told(survivor, died_at=step)
        if not died:
            return step - 1
    raise AssertionError("it never ends")


async def forget_everything(database: Database) -> None:
    for name in await database.handle.list_collection_names():
        if name != "meta":
            await database.collection(name).delete_many({})


async def make_customer_who_stopped_paying(database: Database) -> BillingHouse:
    house = BillingHouse(database, owner="survivor")
    ada: Principal = await house.user()
    await house.instance(ada)
    made = await house.subscribe()
    await house.billing.scheduler.run_once()
    house.gateway.put(replace(made, status="unpaid", latest_invoice=invoice()))
    house.event("invoice.payment_failed", event_id="evt_1")
    return house


async def deliver(house: BillingHouse) -> None:
    """The provider sends it again and again until it is done; then the mails go out."""
    for _ in range(3):
        state = await house.billing.inbox.deliver(orjson.dumps({"id": "evt_1"}), "signed")
        if state is InboxState.DONE:
            break
    await house.billing.notices.run_once()


async def resume(house: BillingHouse) -> None:
    """It is not sent again: what was received is taken up by the job."""
    await house.billing.inbox.resume_once()
    await house.billing.notices.run_once()


async def assert_suspended_and_told(house: BillingHouse, *, died_at: int) -> None:
    account = await house.account()
    where = f"died at step {died_at}"
    assert (account.access, account.applied_epoch, account.access_epoch) == (Access.NONE, 2, 2), where
    await house.directory.sync()
    assert [each.suspension is not None for each in house.directory.all()] == [True], where
    assert await house.notices() == ["sub_1:suspended:in_1"], where
    assert {mail.subject for mail in house.mailer.sent} == {"Your servers have been stopped"}, where
    assert len({mail.message_id for mail in house.mailer.sent}) == 1, where


@pytest.mark.parametrize("takes_effect", [False, True], ids=["before a step", "right after it"])
@pytest.mark.gen_test(timeout=120)
async def test_dying_at_any_step_of_an_event_ends_in_the_same_state(database: Database, takes_effect: bool) -> None:
    deaths = await until_it_survives(database, make_customer_who_stopped_paying, deliver, takes_effect=takes_effect)
    assert deaths > 15


@pytest.mark.gen_test(timeout=60)
async def test_what_was_received_by_one_that_died_is_finished_though_it_is_never_sent_again(
    database: Database,
) -> None:
    house = await make_customer_who_stopped_paying(database)
    inbox = MongoInboxRepository(database)
    await inbox.receive(house.billing.inbox._entry(house.gateway.events[0], source="webhook"))
    await resume(house)
    assert (await house.account()).access is Access.FULL  # perhaps it is still being worked on
    await inbox.claim("evt_1", "dead", lease_seconds=0)
    await let_leases_end(database)
    await resume(house)
    await assert_suspended_and_told(house, died_at=0)


@pytest.mark.gen_test(timeout=60)
async def test_one_poisonous_event_does_not_keep_the_job_from_the_others(database: Database) -> None:
    house = await make_customer_who_stopped_paying(database)
    inbox = MongoInboxRepository(database)
    house.event("invoice.paid", event_id="evt_0", customer_id="cus_x", subscription_id="sub_x")
    for event in reversed(house.gateway.events):
        await inbox.receive(house.billing.inbox._entry(event, source="webhook"))
    await let_leases_end(database)
    broken = RuntimeError("a bug")

    def fail(method: str) -> None:
        if method == "retrieve_subscription":
            raise broken

    house.gateway.before_answer = fail
    await database.collection("billing_inbox").update_many({}, {"$set": {"state": "failed"}})
    await resume(house)
    await assert_suspended_and_told(house, died_at=0)
    poisonous = await inbox.get("evt_0")
    assert poisonous is not None
    assert (poisonous.state, poisonous.attempts) == (InboxState.FAILED, 1)
