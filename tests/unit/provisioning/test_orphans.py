"""Orphans: found when nothing belongs to them, removed after a while, and nobody else's machine is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.errors import ProviderUnavailable
from controlplane.models import Machine, OperationKind, Phase
from controlplane.provisioning.orphans import UNKNOWN_LIMIT
from tests.provisioning_house import ADA, GRACE_SECONDS, ProvisioningHouse

UNKNOWN = "op_abc123_000000000001"


async def begun() -> ProvisioningHouse:
    house = ProvisioningHouse()
    await house.begin()
    return house


async def sweep_for_long(house: ProvisioningHouse) -> None:
    for _ in range(3):
        await house.sweep.run_once()
        house.clock.advance(GRACE_SECONDS / 2)
    await house.sweep.run_once()


@pytest.mark.gen_test
async def test_a_machine_that_appeared_after_its_operation_was_rolled_back_is_removed_after_a_while() -> None:
    house = await begun()
    operation = await house.ended(await house.ask())
    house.operations.operations[operation.id] = replace(operation, phase=Phase.ROLLED_BACK)
    await house.directory.remove(operation.instance_id)
    await house.sweep.run_once()
    assert [(orphan.vmid, orphan.mark) for orphan in house.sweep.seen] == [(10_000, operation.id)]
    assert house.provider.count("destroy") == 0
    house.clock.advance(GRACE_SECONDS)
    await house.sweep.run_once()
    assert house.provider.machines == {}


@pytest.mark.gen_test
async def test_a_machine_that_outlived_the_deletion_of_its_instance_is_removed() -> None:
    house = await begun()
    instance = await house.instance()
    machine = house.provider.machines[instance.vmid]
    await house.ended(await house.service.request(OperationKind.DELETE, instance, ADA.user_id))
    house.provider.machines[instance.vmid] = machine
    await sweep_for_long(house)
    assert house.provider.machines == {}


@pytest.mark.gen_test
async def test_what_has_an_instance_or_an_unfinished_operation_or_waits_for_an_administrator_stays() -> None:
    house = await begun()
    instance = await house.instance()
    house.operations.operations[UNKNOWN] = replace(
        house.operations.operations[instance.operation_id or ""], id=UNKNOWN, phase=Phase.ROLLBACK_FAILED
    )
    house.provider.machines[10_050] = Machine(10_050, UNKNOWN, True)
    await sweep_for_long(house)
    assert set(house.provider.machines) == {instance.vmid, 10_050}


@pytest.mark.gen_test
async def test_a_record_that_an_administrator_removed_leaves_its_machine_alone() -> None:
    house = await begun()
    instance = await house.instance()
    await house.directory.remove(instance.id)
    await sweep_for_long(house)
    assert set(house.provider.machines) == {instance.vmid}


@pytest.mark.gen_test
async def test_neighbours_and_machines_of_another_database_are_never_touched() -> None:
    house = await begun()
    neighbours = {
        500: Machine(500, None, True),
        501: Machine(501, "op_fedcba_000000000001", True),
        502: Machine(502, "somebody-elses-mark", True),
    }
    house.provider.machines.update(neighbours)
    await sweep_for_long(house)
    assert house.provider.machines == neighbours
    assert house.sweep.seen == []


@pytest.mark.gen_test
async def test_an_unknown_operations_machine_is_removed_but_many_at_once_are_a_lost_memory() -> None:
    house = await begun()
    house.provider.machines[500] = Machine(500, UNKNOWN, True)
    await sweep_for_long(house)
    assert house.provider.machines == {}
    many = {vmid: Machine(vmid, f"op_abc123_{vmid}", True) for vmid in range(500, 501 + UNKNOWN_LIMIT)}
    house.provider.machines.update(many)
    await sweep_for_long(house)
    assert house.provider.machines == many


@pytest.mark.gen_test
async def test_an_orphan_that_was_claimed_in_between_is_not_removed() -> None:
    house = await begun()
    house.provider.machines[500] = Machine(500, UNKNOWN, True)
    await house.sweep.run_once()
    house.clock.advance(GRACE_SECONDS)
    house.provider.machines[500] = Machine(500, None, True)  # another machine by now
    await house.sweep.run_once()
    assert set(house.provider.machines) == {500}


@pytest.mark.gen_test
async def test_only_the_holder_of_the_lease_sweeps() -> None:
    house = await begun()
    house.provider.machines[500] = Machine(500, UNKNOWN, True)
    house.leases.owners["orphans"] = "another process"
    await sweep_for_long(house)
    assert house.provider.count("list_marked") == 0
    assert set(house.provider.machines) == {500}


@pytest.mark.gen_test
async def test_a_provider_that_is_away_changes_nothing() -> None:
    house = await begun()

    async def away(_vmid: int) -> None:
        raise ProviderUnavailable("later", operator_message="no route")

    house.provider.machines[500] = Machine(500, UNKNOWN, True)
    house.provider.before["destroy"] = away
    await sweep_for_long(house)
    house.provider.before["list_marked"] = away
    await house.sweep.run_once()
    assert set(house.provider.machines) == {500}


@pytest.mark.gen_test
async def test_a_reservation_whose_operation_is_over_is_given_back() -> None:
    house = await begun()
    operation = await house.ended(await house.ask())
    house.reservations.held = {10_007: operation.id, 10_008: "op_abc123_gone"}
    await house.sweep.run_once()
    assert house.reservations.held == {}
