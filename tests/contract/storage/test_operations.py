"""Operations and vmids on a real server: leases with a fence, one key one operation, one vmid one holder."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.errors import Conflict, StaleRevision
from controlplane.models import (
    InstanceKind,
    MachineAddress,
    Operation,
    OperationError,
    OperationKind,
    Phase,
    StepRecord,
    StepState,
)
from controlplane.storage.database import Database
from controlplane.storage.operations import MongoOperationRepository
from controlplane.storage.vmids import MongoVmidReservations
from tests.contract.storage import processes
from tests.contract.storage.moments import NOW

ERROR = OperationError(Phase.CREATING, "provider_unavailable", "It did not answer.", "POST /x: timed out")


def operation(number: int = 1, **changes: Any) -> Operation:
    plain = Operation(
        id=f"op_{number:03}",
        kind=OperationKind.PROVISION,
        phase=Phase.REQUESTED,
        instance_id=f"gs_{number:03}",
        instance_kind=InstanceKind.GAME,
        owner_id="usr_1",
        requested_by="usr_1",
        name=f"Server {number}",
        created_at=NOW,
        updated_at=NOW,
        due_at=NOW,
        provider="local",
    )
    return replace(plain, **changes)


@pytest.fixture
def operations(database: Database) -> MongoOperationRepository:
    return MongoOperationRepository(database)


@pytest.fixture
def vmids(database: Database) -> MongoVmidReservations:
    return MongoVmidReservations(database)


@pytest.mark.gen_test
async def test_everything_is_stored_and_read_again(operations: MongoOperationRepository) -> None:
    whole = operation(
        plan="small",
        mark="op_000",
        vmid=10_001,
        sealed_token=b"sealed",
        address=MachineAddress("127.0.0.1", 8081, 8080, https=True),
        reason="unpaid",
        key="key",
        request_hash="hash",
        steps=(StepRecord(Phase.REQUESTED, StepState.WAITING, 2, NOW, NOW, ERROR),),
        error=ERROR,
        left_behind=("machine 10001",),
        is_cancel_requested=True,
        finished_at=NOW,
    )
    await operations.add(whole)
    assert await operations.get(whole.id) == whole
    assert await operations.find_by_key("key") == whole
    assert await operations.find_active(whole.instance_id) == whole
    assert await operations.get("op_none") is None


@pytest.mark.gen_test
async def test_one_of_many_with_the_same_key_is_stored(operations: MongoOperationRepository) -> None:
    racers = [operations.add(operation(number, key="same")) for number in range(20)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert results.count(None) == 1
    codes = {result.stable_code for result in results if isinstance(result, Conflict)}
    assert codes == {"operation_key_taken"}
    assert len(await operations.list_active()) == 1


@pytest.mark.gen_test
async def test_an_instance_has_one_unfinished_operation(operations: MongoOperationRepository) -> None:
    await operations.add(operation(1, phase=Phase.SUCCEEDED))
    await operations.add(operation(2, instance_id="gs_001", kind=OperationKind.DELETE, phase=Phase.UNPUBLISHING))
    with pytest.raises(Conflict) as caught:
        await operations.add(operation(3, instance_id="gs_001", kind=OperationKind.SUSPEND, phase=Phase.UNPUBLISHING))
    assert caught.value.stable_code == "operation_in_progress"


@pytest.mark.gen_test
async def test_one_of_many_runners_claims_and_only_it_may_write(operations: MongoOperationRepository) -> None:
    await operations.add(operation())
    racers = [operations.claim("op_001", f"runner-{number}", lease_seconds=30) for number in range(20)]
    claimed = [each for each in await asyncio.gather(*racers) if each is not None]
    assert [each.fence for each in claimed] == [1]
    mine = claimed[0]
    saved = await operations.save(replace(mine, phase=Phase.RESERVED))
    assert (await operations.get("op_001")) == saved
    with pytest.raises(StaleRevision):
        await operations.save(mine)
    with pytest.raises(StaleRevision):
        await operations.save(replace(saved, runner="runner-x"))
    assert await operations.list_due(NOW, provider="local", limit=10) == []
    await operations.release(saved)
    assert await operations.list_due(NOW, provider="local", limit=10) == ["op_001"]


@pytest.mark.gen_test
async def test_a_lease_that_ran_out_passes_on_and_its_former_holder_cannot_write(
    operations: MongoOperationRepository,
) -> None:
    await operations.add(operation())
    first = await operations.claim("op_001", "dead", lease_seconds=0.2)
    assert first is not None
    second = await processes.eventually(lambda: operations.claim("op_001", "heir", lease_seconds=30))
    assert second.fence == 2
    assert await operations.renew(first) is None
    with pytest.raises(StaleRevision):
        await operations.save(replace(first, phase=Phase.RESERVED))
    await operations.release(first)
    assert await operations.claim("op_001", "third", lease_seconds=30) is None
    renewed = await operations.renew(second)
    assert renewed == second


@pytest.mark.gen_test
async def test_what_is_due_is_unfinished_free_and_of_this_provider(operations: MongoOperationRepository) -> None:
    await operations.add(operation(1, due_at=NOW + timedelta(seconds=1)))
    await operations.add(operation(2, phase=Phase.SUCCEEDED))
    await operations.add(operation(3, provider="lxd"))
    await operations.add(operation(4, provider=None))
    await operations.add(operation(5))
    assert await operations.list_due(NOW, provider="local", limit=10) == ["op_004", "op_005"]
    assert await operations.list_due(NOW, provider=None, limit=10) == ["op_004"]
    assert len(await operations.list_due(NOW + timedelta(seconds=1), provider="local", limit=2)) == 2


@pytest.mark.gen_test
async def test_a_cancellation_is_written_only_in_time_and_is_seen_by_the_runner(
    operations: MongoOperationRepository,
) -> None:
    await operations.add(operation())
    mine = await operations.claim("op_001", "me", lease_seconds=30)
    assert mine is not None
    canceled = await operations.request_cancel("op_001", [Phase.REQUESTED])
    assert canceled is not None
    assert canceled.is_cancel_requested
    with pytest.raises(StaleRevision):
        await operations.save(replace(mine, phase=Phase.RESERVED))
    assert await operations.renew(mine) == canceled
    assert await operations.request_cancel("op_001", [Phase.RESERVED]) is None


@pytest.mark.gen_test
async def test_pages_go_from_the_newest_and_keep_to_owner_and_phase(operations: MongoOperationRepository) -> None:
    for number in range(1, 6):
        await operations.add(operation(number, owner_id=f"usr_{number % 2}", phase=Phase.ROLLED_BACK))
    page = await operations.page(owner_id="usr_1", phases=None, limit=2, after=None)
    assert [each.id for each in page] == ["op_005", "op_003"]
    rest = await operations.page(owner_id="usr_1", phases=[Phase.ROLLED_BACK], limit=2, after="op_003")
    assert [each.id for each in rest] == ["op_001"]
    assert await operations.page(owner_id=None, phases=[Phase.FAILED], limit=2, after=None) == []


@pytest.mark.gen_test
async def test_changes_are_found_by_the_servers_clock(operations: MongoOperationRepository) -> None:
    await operations.add(operation(1))
    since = await operations.server_now()
    await operations.add(operation(2))
    changed, later = await operations.changed_since(since)
    assert "op_002" in {each.id for each in changed}
    assert (await operations.changed_since(later + timedelta(minutes=1)))[0] == []


@pytest.mark.gen_test
async def test_a_database_has_one_name(operations: MongoOperationRepository) -> None:
    names = await asyncio.gather(*(operations.deployment_id() for _ in range(10)))
    assert len(set(names)) == 1
    assert len(names[0]) == 6


@pytest.mark.gen_test
async def test_twenty_at_once_never_share_a_vmid(vmids: MongoVmidReservations) -> None:
    reserved = await asyncio.gather(*(vmids.reserve(f"op_{n}", 100, 119, lambda vmid: False) for n in range(20)))
    assert sorted(vmid or 0 for vmid in reserved) == list(range(100, 120))
    assert await vmids.reserve("op_more", 100, 119, lambda vmid: False) is None
    await vmids.release("op_7")
    assert await vmids.reserve("op_more", 100, 119, lambda vmid: False) == reserved[7]
    assert (await vmids.holders())[reserved[7] or 0] == "op_more"


@pytest.mark.gen_test
async def test_a_holder_keeps_its_vmid_and_taken_ones_are_passed_over(vmids: MongoVmidReservations) -> None:
    first = await vmids.reserve("op_1", 100, 109, lambda vmid: vmid < 105)
    assert first == 105
    assert await vmids.reserve("op_1", 100, 109, lambda vmid: True) == 105
    await vmids.release("op_1")
    assert await vmids.reserve("op_1", 100, 109, lambda vmid: True) is None
