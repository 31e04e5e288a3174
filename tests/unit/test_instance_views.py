"""How instances read: the age moves, staleness comes by age, a changed record or state is seen at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from controlplane.agents.cache import StateCache
from controlplane.instance_views import InstanceViews
from controlplane.instances import InstanceDirectory, Registration
from controlplane.models import AgentState, Connection, Instance, InstanceKind, Principal, Process, Role, Suspension
from controlplane.provisioning.board import OperationBoard
from controlplane.secretbox import SecretBox
from tests.account_house import AccountHouse
from tests.fake_provisioning import FakeOperationRepository
from tests.fake_repositories import FakeInstanceRepository, FakeUserRepository
from tests.fakes import FakeClock, FakeStateRepository

STALE_AFTER = 35.0


class House:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.users = FakeUserRepository()
        self.directory = InstanceDirectory(
            FakeInstanceRepository(), self.users, SecretBox(bytes(32)), self.clock, check_address=lambda _address: None
        )
        self.states = StateCache(FakeStateRepository(), self.clock)
        self.operations = OperationBoard(FakeOperationRepository(self.clock))
        self.views = InstanceViews(
            self.directory, self.states, self.clock, self.operations, stale_after_seconds=STALE_AFTER
        )

    async def instance(self, kind: InstanceKind = InstanceKind.GAME, vmid: int = 100) -> Instance:
        return await self.directory.register(
            Registration(kind, "Oakvale", vmid, "127.0.0.1", 9000 + vmid, "t" * 16, self.owner.id)
        )

    async def begin(self) -> Principal:
        accounts = AccountHouse()
        accounts.users = accounts.sessions._users = self.users
        self.owner = await accounts.user()
        return Principal(self.owner.id, self.owner.email, Role.CUSTOMER, "ses_1")

    def observe(self, instance: Instance, **more: Any) -> None:
        fields = {
            "connection": Connection.CONNECTED,
            "ready": True,
            "process": Process.RUNNING,
            "confirmed": True,
            "observed_at": self.clock.now(),
            "revision": 1,
        }
        self.states.put(replace(AgentState(instance.id), **{**fields, **more}))

    def state(self, instance: Instance) -> dict[str, Any]:
        state: dict[str, Any] = orjson.loads(self.views.state_document(instance))
        return state


@pytest.mark.gen_test
async def test_the_age_moves_and_a_state_goes_stale_by_age() -> None:
    house = House()
    await house.begin()
    instance = await house.instance()
    assert (house.state(instance)["ageMs"], house.state(instance)["stale"]) == (None, True)
    house.observe(instance)
    assert (house.state(instance)["ageMs"], house.state(instance)["stale"]) == (0, False)
    fresh_etag = house.views.etag(instance)
    house.clock.advance(STALE_AFTER)
    state = house.state(instance)
    assert (state["ageMs"], state["stale"], state["ready"]) == (35_000, False, True)
    house.clock.advance(0.001)
    state = house.state(instance)
    assert (state["ageMs"], state["stale"], state["ready"]) == (35_001, True, False)
    assert house.views.etag(instance) != fresh_etag, "no poll raised the revision, and yet what is served changed"
    house.observe(instance)
    assert (house.state(instance)["stale"], house.views.etag(instance)) == (False, fresh_etag)


@pytest.mark.gen_test
async def test_a_changed_record_is_seen_at_once() -> None:
    house = House()
    await house.begin()
    instance = await house.instance()
    house.observe(instance)
    before = house.views.etag(instance)
    instance = await house.directory.set_suspension(instance.id, Suspension("unpaid", house.clock.now()))
    assert house.state(instance)["suspension"]["reason"] == "unpaid"
    assert house.views.etag(instance) != before
    instance = await house.directory.update(instance.id, {"name": "Elm"})
    assert orjson.loads(house.views.document(instance))["name"] == "Elm"


@pytest.mark.gen_test
async def test_admins_see_where_an_agent_lives_and_never_its_token() -> None:
    house = House()
    await house.begin()
    document = house.views.admin_document(await house.instance())
    assert orjson.loads(document)["port"] == 9100
    assert b"tttt" not in document


@pytest.mark.gen_test
async def test_pages_end_where_they_should_and_filter_what_is_stale() -> None:
    house = House()
    principal = await house.begin()
    instances = [await house.instance(vmid=100 + number) for number in range(3)]
    for instance in instances:
        house.observe(instance)

    def page(route: InstanceKind | None = InstanceKind.GAME, **query: Any) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(house.views.page(principal, route, {"limit": 50, **query}))
        return found

    assert page(limit=3)["nextAfter"] is None
    assert page(limit=2)["nextAfter"] == sorted(each.id for each in instances)[1]
    assert page(InstanceKind.DEV)["items"] == []
    assert page(InstanceKind.DEV, kind="game") == {"items": [], "nextAfter": None}
    assert len(page(None, kind="game")["items"]) == 3
    assert len(page(ready="true")["items"]) == 3
    house.clock.advance(STALE_AFTER + 1)
    assert page(ready="true")["items"] == []
    assert len(page(ready="false")["items"]) == 3
