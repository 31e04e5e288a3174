"""Operations on fakes: luck and bad luck at every step, keys, quotas, cancellation, what administrators do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.errors import (
    AgentUnreachable,
    Conflict,
    ControlPlaneError,
    Forbidden,
    NotFound,
    ProviderRefused,
    ProviderUnavailable,
    TooManyRequests,
)
from controlplane.instances import Registration
from controlplane.models import (
    ComingEntitlement,
    Entitlement,
    Holding,
    InstanceKind,
    Machine,
    Operation,
    OperationKind,
    Phase,
    StepState,
    Suspension,
)
from controlplane.ports import AgentResponse
from controlplane.provisioning.documents import admin_operation_document, operation_document
from controlplane.provisioning.entitlements import FixedEntitlements
from tests.fakes import FakeTransport
from tests.provisioning_house import ADA, BOB, LEASE_SECONDS, ROOT, STEP_SECONDS, ProvisioningHouse
from tests.refagent_process import until

NEVER_READY = AgentResponse(200, {}, b'{"ready": false, "state": "running", "reason": "no map"}')
PORT = 9000


def raises(error: Exception, *, times: int = 1000) -> Callable[[int], Awaitable[None]]:
    left = [times]

    async def effect(_vmid: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error

    return effect


def lost(times: int = 1000) -> Callable[[int], Awaitable[None]]:
    return raises(ProviderUnavailable("Try later.", operator_message="POST /x timed out"), times=times)


def refused() -> Callable[[int], Awaitable[None]]:
    return raises(ProviderRefused("No room.", operator_message="storage full on node7"))


async def begun() -> ProvisioningHouse:
    house = ProvisioningHouse()
    await house.begin()
    return house


def phases(house: ProvisioningHouse, operation: Operation) -> list[str]:
    stored = [phase.value for each, phase in house.operations.history if each == operation.id]
    return [phase for number, phase in enumerate(stored) if number == 0 or stored[number - 1] != phase]


# -- provisioning ------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_all_goes_well_and_the_instance_is_seen_only_when_it_is_ready() -> None:
    house = await begun()
    operation = await house.ask()
    assert (operation.phase, house.directory.get(operation.instance_id)) == (Phase.REQUESTED, None)
    done = await house.ended(operation)
    assert phases(house, done) == [
        *("requested", "reserved", "creating", "booting", "agentConnected", "readyCheck", "persisting", "publishing"),
        "succeeded",
    ]
    instance = house.directory.get(done.instance_id)
    assert instance is not None
    assert (instance.vmid, instance.provider, instance.operation_id) == (10_000, "fake", done.id)
    assert house.directory.endpoint(instance).token == house.provider.tokens[10_000]
    assert house.publisher.published == {instance.id}
    assert (house.reservations.held, house.stored) == ({}, [instance])
    assert [path for _, path in house.transport.asked].count("/ready") == 4  # three in a row, and once more to store


@pytest.mark.gen_test
async def test_an_agent_that_is_alive_but_never_ready_ends_in_a_rollback_and_is_never_seen() -> None:
    house = await begun()
    house.transport.answers[PORT] = NEVER_READY
    operation = await house.ended(await house.ask())
    assert (operation.phase, operation.error.code if operation.error else "") == (Phase.ROLLED_BACK, "ready_timeout")
    assert "no map" in admin_operation_document(operation)["error"]["operatorMessage"]
    assert "no map" not in str(operation_document(operation))
    assert (house.provider.machines, house.reservations.held, house.instances.instances) == ({}, {}, {})
    assert house.publisher.published == set()


class AlternatelyReady(FakeTransport):
    """Ready twice, then not, over and over; then ready for good."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._script = [True, True, False] * rounds
        self.in_a_row = 0

    def request(self, endpoint, method, target, **rest):  # type: ignore[no-untyped-def]
        if target == "/ready":
            is_ready = self._script.pop(0) if self._script else True
            self.in_a_row = self.in_a_row + 1 if is_ready else 0
            self.answers[endpoint.port] = self.HEALTHY if is_ready else NEVER_READY
        return super().request(endpoint, method, target, **rest)


@pytest.mark.gen_test
async def test_ready_means_several_times_in_a_row() -> None:
    house = await begun()
    flapping = AlternatelyReady(rounds=4)
    house.effects._agents._transport = flapping
    operation = await house.ended(await house.ask())
    assert operation.phase is Phase.SUCCEEDED
    assert [path for _, path in flapping.asked].count("/ready") == 4 * 3 + 3 + 1


@pytest.mark.parametrize("call", ["create", "start"])
@pytest.mark.gen_test
async def test_an_answer_that_got_lost_is_looked_for_before_the_call_is_made_again(call: str) -> None:
    house = await begun()
    house.provider.after[call] = lost(times=1)
    operation = await house.ended(await house.ask())
    assert operation.phase is Phase.SUCCEEDED
    assert house.provider.count("create") == 1
    assert len(house.provider.machines) == 1


@pytest.mark.parametrize("call", ["find", "create", "start", "locate"])
@pytest.mark.gen_test
async def test_a_provider_that_is_away_at_one_call_is_asked_again_and_then_given_up(call: str) -> None:
    house = await begun()
    house.provider.before[call] = lost(times=2)
    assert (await house.ended(await house.ask())).phase is Phase.SUCCEEDED

    house = await begun()
    house.provider.before[call] = lost(times=3)
    operation = await house.ended(await house.ask())
    assert operation.phase is Phase.ROLLED_BACK
    assert operation.error is not None
    assert (operation.error.message, operation.error.operator_message) == ("Try later.", "POST /x timed out")
    assert (house.provider.machines, house.reservations.held) == ({}, {})


@pytest.mark.parametrize("call", ["create", "start"])
@pytest.mark.gen_test
async def test_a_definite_no_is_not_asked_for_again_and_what_was_made_is_removed(call: str) -> None:
    house = await begun()
    house.provider.before[call] = refused()
    operation = await house.ended(await house.ask())
    assert (operation.phase, house.provider.count(call)) == (Phase.ROLLED_BACK, 1)
    assert (house.provider.machines, house.reservations.held) == ({}, {})
    assert house.provider.count("destroy") == (0 if call == "create" else 1)


@pytest.mark.gen_test
async def test_a_machine_that_gets_no_address_is_given_up_in_time() -> None:
    house = await begun()
    house.provider.address = None
    operation = await house.ended(await house.ask())
    assert (operation.phase, operation.error.code if operation.error else "") == (Phase.ROLLED_BACK, "boot_timeout")


@pytest.mark.gen_test
async def test_a_vmid_of_a_neighbour_is_passed_over_and_its_machine_never_touched() -> None:
    house = await begun()
    neighbours = {10_000: Machine(10_000, None, True), 10_001: Machine(10_001, "op_of_another_plane", True)}
    house.provider.machines.update(neighbours)
    operation = await house.ended(await house.ask())
    assert (operation.phase, operation.vmid) == (Phase.SUCCEEDED, 10_002)
    assert {vmid: house.provider.machines[vmid] for vmid in neighbours} == neighbours
    assert {vmid for name, vmid in house.provider.calls if name not in ("find", "list_marked")} == {10_002}


@pytest.mark.gen_test
async def test_a_machine_that_became_a_neighbours_is_not_destroyed_by_the_rollback() -> None:
    house = await begun()

    async def swap(vmid: int) -> None:
        house.provider.machines[vmid] = Machine(vmid, "op_of_another_plane", True)

    house.provider.after["start"] = swap
    operation = await house.ended(await house.ask())
    assert operation.phase is Phase.ROLLED_BACK
    assert house.provider.machines == {10_000: Machine(10_000, "op_of_another_plane", True)}
    assert house.provider.count("destroy") == 0


@pytest.mark.gen_test
async def test_a_full_range_is_a_clear_refusal() -> None:
    house = ProvisioningHouse(vmids=range(10_000, 10_001))
    await house.begin()
    await house.instance()
    operation = await house.ended(await house.ask("Second"))
    assert operation.phase is Phase.ROLLED_BACK
    assert operation.error is not None
    assert "VMID_LAST" in operation.error.operator_message
    assert operation.error.message == "There is no room for another instance at the moment."


@pytest.mark.gen_test
async def test_publishing_that_fails_takes_the_record_and_the_machine_back_in_this_order() -> None:
    house = await begun()
    house.publisher.is_broken = True
    operation = await house.ended(await house.ask())
    assert operation.phase is Phase.ROLLED_BACK
    assert house.directory.get(operation.instance_id) is None
    assert (house.provider.machines, house.reservations.held) == ({}, {})
    undone = [step.phase for step in operation.steps if step.state is StepState.UNDONE]
    assert undone == [Phase.REQUESTED, Phase.CREATING, Phase.PERSISTING, Phase.PUBLISHING]


@pytest.mark.gen_test
async def test_what_cannot_be_removed_needs_an_administrator_who_is_told_what_is_left_where() -> None:
    house = await begun()
    house.transport.answers[PORT] = NEVER_READY
    house.provider.before["destroy"] = lost()
    operation = await house.ended(await house.ask())
    assert operation.phase is Phase.ROLLBACK_FAILED
    assert operation.left_behind == (f"machine 10000 at provider fake, marked {operation.id}",)
    assert operation.error is not None
    assert operation.error.code == "ready_timeout"  # the first trouble, not the last
    assert house.reservations.held == {10_000: operation.id}

    house.provider.before.clear()
    await house.service.retry(operation.id)
    operation = await house.ended(operation)
    assert (operation.phase, operation.left_behind) == (Phase.ROLLED_BACK, ())
    assert (house.provider.machines, house.reservations.held) == ({}, {})
    with pytest.raises(Conflict):
        await house.service.retry(operation.id)


@pytest.mark.gen_test
async def test_an_administrator_may_give_up_and_the_machine_is_left_alone() -> None:
    house = await begun()
    house.transport.answers[PORT] = NEVER_READY
    house.provider.before["destroy"] = refused()
    operation = await house.ended(await house.ask())
    forgotten = await house.service.forget(operation.id)
    assert (forgotten.phase, house.reservations.held) == (Phase.FORGOTTEN, {})
    assert list(house.provider.machines) == [10_000]
    with pytest.raises(Conflict):
        await house.service.forget(operation.id)


# -- leases and crashes ------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_another_runner_takes_over_when_the_lease_has_ended_and_the_first_then_writes_nothing() -> None:
    house = await begun()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hang(_vmid: int) -> None:
        reached.set()
        await go_on.wait()

    house.provider.before["start"] = hang
    operation = await house.ask()
    await reached.wait()
    await house.second_runner.run_once()
    await house.second_runner.until_idle()
    assert house.operations.operations[operation.id].fence == 1  # the lease is held

    del house.provider.before["start"]
    house.clock.advance(LEASE_SECONDS)
    await house.second_runner.run_once()
    await house.second_runner.until_idle()
    done = house.operations.operations[operation.id]
    assert (done.phase, done.fence) == (Phase.SUCCEEDED, 2)
    go_on.set()
    await house.runner.until_idle()
    assert house.operations.operations[operation.id] == done
    assert house.provider.count("create") == 1


@pytest.mark.gen_test
async def test_while_the_database_is_away_nothing_is_done_and_afterwards_it_goes_on() -> None:
    house = await begun()

    async def lose_the_database(_vmid: int) -> None:
        house.operations.is_away = True

    house.provider.after["create"] = lose_the_database
    operation = await house.ask()
    await house.runner.until_idle()
    assert house.provider.count("start") == 0
    house.operations.is_away = False
    house.provider.after.clear()
    house.clock.advance(LEASE_SECONDS)
    assert (await house.ended(operation)).phase is Phase.SUCCEEDED
    assert house.provider.count("create") == 1


@pytest.mark.gen_test
async def test_stopping_lets_the_step_under_way_end_and_leaves_the_rest_to_others() -> None:
    house = await begun()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hang(_vmid: int) -> None:
        reached.set()
        await go_on.wait()

    house.provider.before["create"] = hang
    operation = await house.ask()
    await reached.wait()
    stopping = asyncio.ensure_future(house.runner.stop(limit_seconds=60))
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    stored = house.operations.operations[operation.id]
    assert (stored.phase, stored.runner) == (Phase.BOOTING, None)
    await house.second_runner.run_once()
    await house.second_runner.until_idle()
    assert house.operations.operations[operation.id].phase is Phase.SUCCEEDED


@pytest.mark.gen_test
async def test_a_call_that_never_ends_is_cut_and_what_it_did_is_looked_at() -> None:
    house = await begun()
    house.runner = house.make_runner("quick", lease_seconds=0.01)  # renewed, and so looked at, every few milliseconds
    house.service = house.make_service("fake")
    await house.begin()

    async def hang(_vmid: int) -> None:
        house.clock.advance(STEP_SECONDS)
        del house.provider.after["create"]
        await asyncio.Event().wait()

    house.provider.after["create"] = hang
    operation = await house.ended(await house.ask())
    assert (operation.phase, house.provider.count("create")) == (Phase.SUCCEEDED, 1)
    assert operation.step(Phase.CREATING).attempts == 2  # type: ignore[union-attr]


@pytest.mark.gen_test
async def test_ends_are_counted_by_kind_and_state() -> None:
    house = await begun()
    await house.instance()
    counted = house.metrics.render().decode()
    assert 'controlplane_operations_ended_total{kind="provision",state="succeeded"} 1.0' in counted


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


# -- news --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_the_board_knows_what_is_done_to_an_instance_and_tells_every_change_once() -> None:
    house = await begun()
    instance = await house.instance()
    operation = await house.service.request(OperationKind.DELETE, instance, ADA.user_id)
    known = house.board.of_instance(instance.id)
    assert known is not None
    assert known.id == operation.id
    await house.settle()
    assert house.board.of_instance(instance.id) is None
    told = [each.revision for each in house.seen if each.id == operation.id]
    assert told == sorted(set(told))
    count = len(house.seen)
    await house.board.sync()
    assert len(house.seen) == count


@pytest.mark.gen_test
async def test_an_unexpected_fault_is_tried_again_and_its_words_stay_with_operators() -> None:
    house = await begun()
    house.provider.before["create"] = raises(ZeroDivisionError("secret detail"))
    operation = await house.ended(await house.ask())
    assert operation.phase is Phase.ROLLED_BACK
    assert house.provider.count("create") == 3
    assert "secret detail" not in str(operation_document(operation))
    assert "secret detail" in str(admin_operation_document(operation))
    assert not isinstance(operation.error, ControlPlaneError)
