"""What may be asked for and what comes of it, on fakes: keys, quotas, cancellation, deletion, suspension."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.errors import AgentUnreachable, Conflict, Forbidden, NotFound, TooManyRequests
from controlplane.instances import Registration
from controlplane.models import (
    ComingEntitlement,
    Entitlement,
    Holding,
    InstanceKind,
    Machine,
    OperationKind,
    Phase,
    Suspension,
)
from controlplane.provisioning.entitlements import FixedEntitlements
from tests.provisioning_house import ADA, BOB, NEVER_READY, PORT, ROOT, ProvisioningHouse, begun, lost, phases, refused
from tests.refagent_process import until

# -- keys, quotas, entitlements ----------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_twenty_requests_with_one_key_make_one_operation() -> None:
    house = await begun()
    operations = await asyncio.gather(*(house.ask(key="same") for _ in range(20)))
    assert len({operation.id for operation in operations}) == 1
    await house.settle()
    assert (await house.ask(key="same")).id == operations[0].id
    assert len(house.provider.machines) == 1
    with pytest.raises(Conflict) as caught:
        await house.ask("Other", key="same")
    assert caught.value.stable_code == "idempotency_key_reused"
    assert (await house.ask(by=BOB, key="same")).id != operations[0].id
    await house.settle()


@pytest.mark.gen_test
async def test_a_repeated_request_is_no_second_instance_to_the_quota() -> None:
    house = ProvisioningHouse(limit=1)
    await house.begin()
    first, again = await asyncio.gather(house.ask(key="same"), house.ask(key="same"))
    assert first.id == again.id
    await house.settle()
    assert (await house.ask(key="same")).id == first.id


@pytest.mark.gen_test
async def test_a_customer_has_no_more_than_the_quota_even_when_all_is_asked_for_at_once() -> None:
    house = ProvisioningHouse(limit=2)
    await house.begin()
    results = await asyncio.gather(*(house.ask(f"Server {n}") for n in range(3)), return_exceptions=True)
    refusals = [result for result in results if isinstance(result, Conflict)]
    assert [refusal.stable_code for refusal in refusals] == ["quota_reached"]
    await house.settle()
    with pytest.raises(Conflict):
        await house.ask("One more")
    for number in range(4):
        await house.ended(await house.ask(f"Server {number}", by=ROOT))  # administrators are exempt


@pytest.mark.gen_test
async def test_what_the_subscription_does_not_cover_is_refused() -> None:
    house = ProvisioningHouse(limit=0)
    await house.begin()
    with pytest.raises(Forbidden) as caught:
        await house.ask()
    assert caught.value.stable_code == "not_entitled"
    house = await begun()
    with pytest.raises(Forbidden) as caught:
        await house.service.provision(ADA, InstanceKind.GAME, name="Big", plan="large")
    assert caught.value.stable_code == "plan_not_entitled"


class Changing(FixedEntitlements):
    """To something smaller, in a month."""

    def __init__(self, present: Entitlement, coming: Entitlement) -> None:
        super().__init__(present)
        self._coming = ComingEntitlement(coming, "Starter", datetime(2026, 2, 1, tzinfo=UTC))

    async def coming(self, user_id: str) -> ComingEntitlement:
        return self._coming


@pytest.mark.parametrize(
    ("coming", "details"),
    [
        ({"instances": {InstanceKind.GAME: 1}}, {"kind": "game", "limit": 1, "used": 1}),
        ({"instances": {}}, {"kind": "game"}),
        ({"memory_mib": 512}, {"plan": "small", "memoryMib": 1024, "memoryLimitMib": 512}),
    ],
)
@pytest.mark.gen_test
async def test_what_is_made_has_to_fit_into_the_plan_to_come_too(
    coming: dict[str, Any], details: dict[str, Any]
) -> None:
    house = await begun()
    await house.instance()
    present = Entitlement(dict.fromkeys(InstanceKind, 2), memory_mib=2048, backups=1, ide=True)
    house.service._entitlements = Changing(present, replace(present, **coming))
    with pytest.raises(Conflict) as caught:
        await house.ask("Second")
    assert caught.value.stable_code == "exceeds_coming_plan"
    assert caught.value.message == (
        "From 1 February 2026 on your plan is Starter, and this would not fit into it: take the change back first."
    )
    assert caught.value.details == {"comingPlan": "Starter", "at": "2026-02-01T00:00:00.000Z", **details}
    house.service._entitlements = Changing(present, present)
    await house.instance()


@pytest.mark.gen_test
async def test_holdings_are_what_there_is_and_what_is_being_made_and_no_more_is_asked_for_meanwhile() -> None:
    house = await begun()
    there = await house.service.provision(ADA, InstanceKind.GAME, name="There", plan="standard")
    await house.settle()
    house.user(ADA)
    await house.directory.register(
        Registration(InstanceKind.DEV, "By hand", 500, "127.0.0.1", PORT, "t" * 16, ADA.user_id)
    )
    house.transport.silent.add(PORT)
    await house.ask("Coming")
    await house.ask("Another's", by=BOB)
    async with house.service.holdings(ADA.user_id) as holdings:
        assert sorted(holdings, key=lambda each: each.name) == [
            Holding(InstanceKind.DEV, "By hand", None),
            Holding(InstanceKind.GAME, "Coming", 1024),
            Holding(InstanceKind.GAME, "There", 2048),
        ]
        late = asyncio.ensure_future(house.ask("Late"))
        await house.ask("Not in the way", by=BOB)
        assert len(await house.operations.list_unfinished_of(ADA.user_id)) == 1
    assert (await late).name == "Late"
    found = house.directory.get(there.instance_id)
    assert found is not None
    assert found.memory_mib == 2048
    await house.runner.stop(limit_seconds=0)


@pytest.mark.gen_test
async def test_only_so_many_operations_of_an_account_are_under_way() -> None:
    house = await begun()
    house.provider.before["find"] = lost()
    for number in range(3):
        await house.ask(f"Server {number}")
    with pytest.raises(TooManyRequests):
        await house.ask("One more")
    await house.settle()


@pytest.mark.gen_test
async def test_without_a_provider_nothing_is_made() -> None:
    house = await begun()
    service = house.make_service(None)
    with pytest.raises(Conflict) as caught:
        await service.provision(ADA, InstanceKind.GAME, name="Oakvale", plan="small")
    assert caught.value.stable_code == "provisioning_disabled"


# -- cancellation ------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_cancellation_while_it_waits_for_its_agent_takes_everything_back_at_once() -> None:
    house = await begun()
    house.transport.silent.add(PORT)
    operation = await house.ask()

    async def is_asked() -> bool:
        return bool(house.transport.waiting)

    await until(is_asked)
    canceled = await house.service.cancel(operation.id, ADA)
    assert canceled.is_cancel_requested
    assert (await house.ended(operation)).phase is Phase.CANCELED
    assert (house.provider.machines, house.reservations.held, house.instances.instances) == ({}, {}, {})


@pytest.mark.gen_test
async def test_a_cancellation_while_a_machine_is_made_waits_for_the_outcome() -> None:
    house = await begun()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hang(_vmid: int) -> None:
        reached.set()
        await go_on.wait()

    house.provider.before["create"] = hang
    operation = await house.ask()
    await reached.wait()
    await house.service.cancel(operation.id, ADA)
    await asyncio.sleep(0)
    go_on.set()
    assert (await house.ended(operation)).phase is Phase.CANCELED
    assert (house.provider.machines, house.provider.count("start")) == ({}, 0)


@pytest.mark.gen_test
async def test_what_is_stored_or_foreign_cannot_be_canceled() -> None:
    house = await begun()
    operation = await house.ended(await house.ask())
    with pytest.raises(Conflict) as caught:
        await house.service.cancel(operation.id, ADA)
    assert caught.value.stable_code == "not_cancelable"
    for missing in (operation.id, "op_none"):
        with pytest.raises(NotFound):
            await house.service.cancel(missing, BOB)


# -- deletion ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_deletion_withdraws_stops_destroys_and_forgets_in_this_order() -> None:
    house = await begun()
    instance = await house.instance()
    operation = await house.service.request(OperationKind.DELETE, instance, ADA.user_id)
    again = await house.service.request(OperationKind.DELETE, instance, ADA.user_id)
    assert again.id == operation.id
    done = await house.ended(operation)
    assert phases(house, done) == ["unpublishing", "stopping", "destroying", "deleted"]
    assert [name for name, _ in house.provider.calls if name in ("stop", "destroy")] == ["stop", "destroy"]
    assert (house.publisher.published, house.provider.machines) == (set(), {})
    assert house.publisher.retired == [instance.id]
    assert house.directory.get(instance.id) is None


@pytest.mark.gen_test
async def test_a_deletion_never_touches_a_neighbour_on_the_same_vmid() -> None:
    house = await begun()
    instance = await house.instance()
    house.provider.machines[instance.vmid] = Machine(instance.vmid, None, True)
    operation = await house.ended(await house.service.request(OperationKind.DELETE, instance, ADA.user_id))
    assert operation.phase is Phase.FAILED
    assert house.provider.machines == {instance.vmid: Machine(instance.vmid, None, True)}
    assert not {name for name, _ in house.provider.calls} & {"stop", "destroy"}
    await house.service.forget(operation.id)
    assert house.directory.get(instance.id) is None


@pytest.mark.gen_test
async def test_a_machine_that_is_gone_already_is_deleted_all_the_same() -> None:
    house = await begun()
    instance = await house.instance()
    house.provider.machines.clear()
    operation = await house.ended(await house.service.request(OperationKind.DELETE, instance, ADA.user_id))
    assert (operation.phase, house.directory.get(instance.id)) == (Phase.DELETED, None)


@pytest.mark.gen_test
async def test_an_instance_that_was_registered_by_hand_is_not_deleted() -> None:
    house = await begun()
    house.user(ADA)
    instance = await house.directory.register(
        Registration(InstanceKind.GAME, "Old", 500, "127.0.0.1", PORT, "t" * 16, ADA.user_id)
    )
    with pytest.raises(Conflict) as caught:
        await house.service.request(OperationKind.DELETE, instance, ADA.user_id)
    assert caught.value.stable_code == "not_provisioned_here"


@pytest.mark.gen_test
async def test_an_instance_of_another_provider_is_left_to_the_process_that_has_it() -> None:
    house = await begun()
    instance = replace(await house.instance(), provider="lxd")
    with pytest.raises(Conflict) as caught:
        await house.service.request(OperationKind.DELETE, instance, ADA.user_id)
    assert caught.value.stable_code == "provider_not_configured"


# -- suspension --------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_suspension_closes_and_stops_and_keeps_the_data_and_its_end_starts_and_publishes() -> None:
    house = await begun()
    instance = await house.instance()
    operation_id = await house.service.suspend(instance.id, "unpaid", key="invoice-7")
    assert await house.service.suspend(instance.id, "unpaid for long", key="invoice-7") == operation_id
    await house.settle()
    assert house.operations.operations[operation_id].phase is Phase.SUSPENDED
    suspended = house.directory.get(instance.id)
    assert suspended is not None
    assert suspended.suspension == Suspension("unpaid", house.clock.now())
    assert (house.publisher.published, house.provider.machines[instance.vmid].is_running) == (set(), False)

    lifting = await house.service.unsuspend(instance.id, key="invoice-7-paid")
    await house.settle()
    assert house.operations.operations[lifting].phase is Phase.UNSUSPENDED
    lifted = house.directory.get(instance.id)
    assert lifted is not None
    assert lifted.suspension is None
    assert (house.publisher.published, house.provider.machines[instance.vmid].is_running) == ({instance.id}, True)


@pytest.mark.gen_test
async def test_a_workload_that_does_not_get_ready_again_is_its_owners_to_mend_and_is_not_published() -> None:
    house = await begun()
    instance = await house.instance()
    await house.service.suspend(instance.id, "unpaid", key="1")
    await house.settle()
    house.transport.answers[PORT] = NEVER_READY
    lifting = await house.service.unsuspend(instance.id, key="2")
    await house.settle()
    assert house.operations.operations[lifting].phase is Phase.FAILED
    lifted = house.directory.get(instance.id)
    assert lifted is not None
    assert (lifted.suspension, house.publisher.published) == (None, set())
    house.transport.answers.clear()
    await house.service.retry(lifting)
    await house.settle()
    assert house.publisher.published == {instance.id}


@pytest.mark.gen_test
async def test_a_lift_that_failed_is_taken_up_again_by_its_key_once_it_has_rested_and_nothing_else_is_done() -> None:
    house = await begun()
    instance = await house.instance()
    await house.service.suspend(instance.id, "unpaid", key="1")
    await house.settle()
    house.provider.before["start"] = refused()
    first = await house.service.unsuspend_again(instance.id, key="2")  # never asked for: this does
    assert first is not None
    assert await house.service.unsuspend_again(instance.id, key="2") is None  # under way
    await house.settle()
    assert house.operations.operations[first].phase is Phase.FAILED
    assert await house.service.unsuspend_again(instance.id, key="2") is None  # it failed a moment ago
    house.clock.advance(60)
    house.provider.before["stop"] = lost()
    other = await house.service.suspend(instance.id, "abuse", key="3")
    assert await house.service.unsuspend_again(instance.id, key="2") is None  # something else is done to it
    assert await house.service.unsuspend_again(instance.id, key="4") is None
    await house.ended(house.operations.operations[other])
    house.provider.before.clear()
    assert await house.service.unsuspend_again(instance.id, key="2") == first
    await house.settle()
    assert house.operations.operations[first].phase is Phase.UNSUSPENDED
    assert await house.service.unsuspend_again(instance.id, key="2") is None  # it is done


@pytest.mark.gen_test
async def test_an_instance_without_a_provider_is_stopped_through_its_agent() -> None:
    house = await begun()
    house.user(ADA)
    instance = await house.directory.register(
        Registration(InstanceKind.GAME, "Old", 500, "127.0.0.1", PORT, "t" * 16, ADA.user_id)
    )
    await house.service.suspend(instance.id, "unpaid", key="1")
    await house.settle()
    assert (PORT, "/stop") in house.transport.asked
    house.transport.answers[PORT] = AgentUnreachable("refused")
    await house.service.unsuspend(instance.id, key="2")
    await house.settle()
    failed = next(each for each in house.operations.operations.values() if each.phase is Phase.FAILED)
    assert failed.error is not None
    assert (failed.error.phase, failed.error.operator_message) == (Phase.STARTING, "refused")


@pytest.mark.gen_test
async def test_two_things_are_not_done_to_an_instance_at_once_and_a_repeated_call_finds_what_it_began() -> None:
    house = await begun()
    instance = await house.instance()
    house.provider.before["find"] = lost(times=1)
    deletion = await house.service.delete(instance.id, "unpaid", key="end")
    with pytest.raises(Conflict) as caught:
        await house.service.suspend(instance.id, "unpaid", key="other")
    assert caught.value.stable_code == "operation_in_progress"
    await house.settle()
    assert await house.service.delete(instance.id, "unpaid", key="end") == deletion
    with pytest.raises(NotFound):
        await house.service.delete(instance.id, "unpaid", key="another")
