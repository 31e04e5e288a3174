"""Operations carried through, on fakes: luck and bad luck at every step, leases, crashes, what is given up."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.errors import Conflict, ControlPlaneError
from controlplane.models import Machine, Phase, StepState
from controlplane.provisioning.documents import admin_operation_document, operation_document
from tests.fakes import FakeTransport
from tests.provisioning_house import (
    LEASE_SECONDS,
    NEVER_READY,
    PORT,
    STEP_SECONDS,
    ProvisioningHouse,
    begun,
    lost,
    phases,
    raises,
    refused,
)

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
