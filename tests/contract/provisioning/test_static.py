"""The static pool on a real database: hosts are handed out once, stopped before they are given back, and never reused
before they were wiped."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.errors import (
    AgentError,
    AgentRefused,
    AgentUnreachable,
    ProviderRefused,
    ProviderUnavailable,
    VmidTaken,
)
from controlplane.models import AgentEndpoint, InstanceKind, Machine, MachineAddress, MachineSpec
from controlplane.provider_settings import StaticHost, StaticSettings
from controlplane.provisioning.static import StaticProvider
from controlplane.storage.database import Database
from controlplane.storage.static_claims import MongoStaticClaimRepository

BOTH = frozenset(InstanceKind)
RED = StaticHost("red", "10.0.0.1", 8081, "red-secret", BOTH, ide_port=8443, https=True)
BLUE = StaticHost("blue", "10.0.0.2", 8081, "blue-secret", frozenset({InstanceKind.GAME}))
SPEC = MachineSpec(100, "op_first", InstanceKind.GAME, "testholm", 1, 1024, 8, "unused-secret")


class FakePower:
    """Agents that start and stop, or fail as told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.failure: AgentError | None = None

    async def start(self, endpoint: AgentEndpoint, *, request_id: str) -> None:
        await self._ask("start", endpoint)

    async def stop(self, endpoint: AgentEndpoint, *, request_id: str) -> None:
        await self._ask("stop", endpoint)

    async def _ask(self, what: str, endpoint: AgentEndpoint) -> None:
        self.asked.append((what, endpoint.address, endpoint.token))
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def power() -> FakePower:
    return FakePower()


def pool(database: Database, power: FakePower, *hosts: StaticHost) -> StaticProvider:
    return StaticProvider(MongoStaticClaimRepository(database), power, StaticSettings(hosts))


@pytest.mark.gen_test
async def test_a_host_is_claimed_started_stopped_and_given_back(database: Database, power: FakePower) -> None:
    provider = pool(database, power, RED)
    assert await provider.find(100) is None
    assert await provider.locate(100) is None
    await provider.create(SPEC)
    await provider.create(SPEC)
    assert await provider.find(100) == Machine(100, "op_first", False)
    address = await provider.locate(100)
    assert address == MachineAddress("10.0.0.1", 8081, 8443, https=True, agent_token="red-secret")
    assert "red-secret" not in repr(address)
    await provider.start(100)
    assert await provider.list_marked() == [Machine(100, "op_first", True)]
    await provider.stop(100)
    assert await provider.find(100) == Machine(100, "op_first", False)
    await provider.destroy(100, operation_id="op_first")
    await provider.destroy(100, operation_id="op_first")
    await provider.stop(100)
    assert await provider.list_marked() == []
    assert [what for what, _, _ in power.asked] == ["start", "stop", "stop"]


@pytest.mark.gen_test
async def test_operations_at_once_never_share_a_host(database: Database, power: FakePower) -> None:
    provider, second_process = pool(database, power, RED, BLUE), pool(database, power, RED, BLUE)
    specs = [replace(SPEC, vmid=100 + number, operation_id=f"op_{number}") for number in range(6)]
    results = await asyncio.gather(
        *((provider, second_process)[each.vmid % 2].create(each) for each in specs), return_exceptions=True
    )
    assert results.count(None) == 2
    refusals = [each for each in results if each is not None]
    assert all(
        isinstance(each, ProviderRefused) and "STATIC_HOSTS_FILE" in (each.operator_message or "") for each in refusals
    )
    addresses = [await provider.locate(spec.vmid) for spec in specs]
    assert len({each.address for each in addresses if each is not None}) == 2


@pytest.mark.gen_test
async def test_only_a_host_for_the_kind_is_taken(database: Database, power: FakePower) -> None:
    provider = pool(database, power, BLUE)
    with pytest.raises(ProviderRefused):
        await provider.create(replace(SPEC, kind=InstanceKind.DEV))
    assert await provider.list_marked() == []


@pytest.mark.gen_test
async def test_another_operations_host_is_not_ours(database: Database, power: FakePower) -> None:
    provider = pool(database, power, RED, BLUE)
    await provider.create(SPEC)
    with pytest.raises(VmidTaken):
        await provider.create(replace(SPEC, operation_id="op_second"))
    with pytest.raises(ProviderRefused):
        await provider.destroy(100, operation_id="op_second")
    assert power.asked == []
    assert await provider.find(100) == Machine(100, "op_first", False)


@pytest.mark.gen_test
async def test_a_host_whose_workload_may_still_run_is_not_given_back(database: Database, power: FakePower) -> None:
    provider = pool(database, power, RED)
    await provider.create(SPEC)
    power.failure = AgentUnreachable("connection refused")
    for call in (provider.start(100), provider.stop(100), provider.destroy(100, operation_id="op_first")):
        with pytest.raises(ProviderUnavailable) as unknown:
            await call
        assert "host red" in unknown.value.operator_message
    power.failure = AgentRefused("no", status=500, body="disk full")
    with pytest.raises(ProviderRefused) as refused:
        await provider.destroy(100, operation_id="op_first")
    assert "disk full" in refused.value.operator_message
    assert await provider.find(100) == Machine(100, "op_first", False)
    power.failure = AgentRefused("stopped already", status=409, body=None)
    await provider.destroy(100, operation_id="op_first")
    assert await provider.find(100) is None


@pytest.mark.gen_test
async def test_a_used_host_is_handed_out_again_only_once_it_was_wiped(database: Database, power: FakePower) -> None:
    provider = pool(database, power, RED)
    await provider.create(SPEC)
    await provider.destroy(100, operation_id="op_first")
    again = replace(SPEC, vmid=101, operation_id="op_second")
    with pytest.raises(ProviderRefused):
        await provider.create(again)
    wiped = pool(database, power, replace(RED, generation=2))
    await wiped.create(again)
    assert await wiped.find(101) == Machine(101, "op_second", False)


@pytest.mark.gen_test
async def test_a_host_that_left_the_list_can_be_given_back_but_not_started(
    database: Database, power: FakePower
) -> None:
    await pool(database, power, RED).create(SPEC)
    provider = pool(database, power, BLUE)
    assert await provider.locate(100) is None
    with pytest.raises(ProviderRefused):
        await provider.start(100)
    await provider.destroy(100, operation_id="op_first")
    assert await provider.list_marked() == []
    assert power.asked == []
