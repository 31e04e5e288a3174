"""Instances: unique vmid and address among the living, compare-and-set on the revision, what changed since."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.errors import Conflict, StaleRevision
from controlplane.models import Instance, InstanceKind, Suspension
from controlplane.storage.database import Database
from controlplane.storage.instances import MongoInstanceRepository
from tests.contract.storage.moments import NOW


def instance(number: int = 1, **changes: Any) -> Instance:
    plain = Instance(
        id=f"gs_{number:03}",
        kind=InstanceKind.GAME,
        vmid=100 + number,
        name=f"Server {number}",
        owner_id="usr_1",
        address="10.0.0.5",
        port=7000 + number,
        sealed_token=b"\x00sealed\xff",
        created_at=NOW,
    )
    return replace(plain, **changes)


@pytest.fixture
def instances(database: Database) -> MongoInstanceRepository:
    return MongoInstanceRepository(database)


@pytest.mark.gen_test
async def test_an_instance_comes_back_as_it_was_stored(instances: MongoInstanceRepository) -> None:
    stored = instance(
        kind=InstanceKind.DEV, https=True, ide_port=9000, suspension=Suspension("unpaid", NOW), revision=3
    )
    await instances.add(stored)
    assert await instances.get(stored.id) == stored
    assert (await instances.load_all())[0] == [stored]
    assert await instances.get("gs_none") is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"vmid": 101}, "vmid_taken"), ({"port": 7001}, "address_taken"), ({"id": "gs_001"}, "conflict")],
)
@pytest.mark.gen_test
async def test_what_a_live_instance_holds_is_taken(
    instances: MongoInstanceRepository, changes: dict[str, Any], code: str
) -> None:
    await instances.add(instance(1))
    with pytest.raises(Conflict) as caught:
        await instances.add(instance(2, **changes))
    assert caught.value.stable_code == code
    assert await instances.get("gs_001") == instance(1)


@pytest.mark.gen_test
async def test_a_tombstone_holds_neither_vmid_nor_address(instances: MongoInstanceRepository) -> None:
    await instances.add(instance(1))
    await instances.replace(instance(1, revision=2, deleted_at=NOW), expected_revision=1)
    await instances.add(instance(2, vmid=101))
    assert [each.id for each in (await instances.load_all())[0]] == ["gs_002"]
    with pytest.raises(Conflict) as caught:
        await instances.replace(instance(1, revision=3), expected_revision=2)
    assert caught.value.stable_code == "vmid_taken"


@pytest.mark.gen_test
async def test_one_of_many_racers_gets_a_vmid(instances: MongoInstanceRepository) -> None:
    racers = [instances.add(instance(number, vmid=500)) for number in range(40)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert results.count(None) == 1
    codes = {result.stable_code for result in results if isinstance(result, Conflict)}
    assert codes == {"vmid_taken"}


@pytest.mark.gen_test
async def test_one_of_many_racers_replaces_a_revision(instances: MongoInstanceRepository) -> None:
    await instances.add(instance())
    racers = [
        instances.replace(instance(revision=2, name=f"Name {number}"), expected_revision=1) for number in range(40)
    ]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert results.count(None) == 1
    assert sum(isinstance(result, StaleRevision) for result in results) == 39
    assert await instances.get("gs_001") == instance(revision=2, name=f"Name {results.index(None)}")


@pytest.mark.gen_test
async def test_increments_of_many_writers_are_all_kept(instances: MongoInstanceRepository) -> None:
    await instances.add(instance())

    async def write_once() -> None:
        while True:
            current = await instances.get("gs_001")
            assert current is not None
            changed = replace(current, revision=current.revision + 1, name=current.name + "+")
            try:
                await instances.replace(changed, expected_revision=current.revision)
            except StaleRevision:
                continue
            return

    await asyncio.gather(*(write_once() for _ in range(12)))
    assert await instances.get("gs_001") == instance(revision=13, name="Server 1" + "+" * 12)


@pytest.mark.gen_test
async def test_a_revision_that_does_not_follow_is_refused(instances: MongoInstanceRepository) -> None:
    await instances.add(instance())
    with pytest.raises(ValueError, match="does not follow"):
        await instances.replace(instance(revision=3), expected_revision=1)


@pytest.mark.gen_test
async def test_changes_since_a_moment_hold_every_later_write_and_tombstones(instances: MongoInstanceRepository) -> None:
    await instances.add(instance(1))
    await instances.add(instance(2))
    loaded, moment = await instances.load_all()
    assert loaded == [instance(1), instance(2)]
    await instances.add(instance(3))
    await instances.replace(instance(1, revision=2, deleted_at=NOW), expected_revision=1)
    changed, later = await instances.changed_since(moment)
    by_id = {each.id: each for each in changed}
    assert by_id["gs_001"] == instance(1, revision=2, deleted_at=NOW)
    assert by_id["gs_003"] == instance(3)
    assert later >= moment


@pytest.mark.gen_test
async def test_what_was_written_long_before_is_not_read_again(instances: MongoInstanceRepository) -> None:
    await instances.add(instance(1))
    _, moment = await instances.load_all()
    assert (await instances.changed_since(moment + timedelta(minutes=1)))[0] == []


@pytest.mark.gen_test
async def test_who_owns_what_and_whose_machine_it_is_are_told_by_the_database(
    instances: MongoInstanceRepository,
) -> None:
    made = instance(1, provider="local", operation_id="op_1", memory_mib=2048)
    await instances.add(made)
    await instances.add(instance(2, kind=InstanceKind.DEV))
    await instances.add(instance(3))
    await instances.replace(instance(3, revision=2, deleted_at=NOW), expected_revision=1)
    owner = instance(1).owner_id
    assert await instances.live_ids_of(owner, InstanceKind.GAME) == {"gs_001"}
    assert await instances.live_ids_of(owner, InstanceKind.DEV) == {"gs_002"}
    assert await instances.live_ids_of("usr_nobody", InstanceKind.GAME) == set()
    assert await instances.get("gs_001") == made
    assert await instances.has_machine("op_1")
    await instances.replace(
        instance(1, provider="local", operation_id="op_1", memory_mib=2048, revision=2, deleted_at=NOW),
        expected_revision=1,
    )
    assert not await instances.has_machine("op_1")


@pytest.mark.gen_test
async def test_a_row_of_before_there_was_provisioning_is_read_as_made_by_nobody(
    instances: MongoInstanceRepository, database: Database
) -> None:
    await instances.add(instance(1))
    await database.collection("instances").update_one(
        {"_id": "gs_001"}, {"$unset": {"provider": True, "operation_id": True, "memory_mib": True}}
    )
    assert await instances.get("gs_001") == instance(1)
