"""Each call of the Proxmox provider that fails in each way: told as what it is, and mended by another try."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controlplane.errors import ProviderError, ProviderRefused, ProviderUnavailable
from controlplane.models import Machine
from controlplane.provisioning.proxmox import ProxmoxProvider
from tests.proxmox_house import SECRET, SPEC, VMID, Make, ours
from tests.proxmox_server import TOKEN, Guest, ProxmoxServer
from tests.refagent_process import until

HOW = ("unauthorized", "forbidden", "refused", "locked", "gateway", "dropped", "lost", "garbage")
NO = ("unauthorized", "forbidden", "refused")
# method of the provider: the calls that it makes, and of these the ones that begin a task
CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "find": (("resources", "config", "status"), ()),
    "create": (("resources", "nextid", "clone", "configure", "resize"), ("clone", "resize")),
    "start": (("resources", "config", "status", "start"), ("start",)),
    "locate": (("interfaces",), ()),
    "stop": (("config", "stop"), ("stop",)),
    "destroy": (("resources", "config", "destroy"), ("destroy",)),
    "list_marked": (("resources", "config", "status"), ()),
}
CASES = [
    (method, call, how)
    for method, (calls, tasks) in CALLS.items()
    for call in calls
    for how in (*HOW, *(("task",) if call in tasks else ()))
]
ACTS: dict[str, Callable[[ProxmoxProvider], Awaitable[Any]]] = {
    "find": lambda provider: provider.find(VMID),
    "create": lambda provider: provider.create(SPEC),
    "start": lambda provider: provider.start(VMID),
    "locate": lambda provider: provider.locate(VMID),
    "stop": lambda provider: provider.stop(VMID),
    "destroy": lambda provider: provider.destroy(VMID, operation_id="op_first"),
    "list_marked": lambda provider: provider.list_marked(),
}


def expected(method: str, call: str, how: str) -> type[ProviderError] | None:
    """None where the provider gets there in spite of it."""
    if (call, how) == ("clone", "locked"):
        return None  # waited for
    if call in ("configure", "resize"):
        return ProviderUnavailable  # a clone is there: this is no «nothing was done» any more
    if how == "task":
        return ProviderUnavailable if method == "destroy" else ProviderRefused
    return ProviderRefused if how in NO else ProviderUnavailable


@pytest.mark.parametrize(("method", "call", "how"), CASES)
@pytest.mark.gen_test
async def test_a_failure_is_told_as_what_it_is_and_another_try_gets_there(
    server: ProxmoxServer, make: Make, method: str, call: str, how: str
) -> None:
    if method != "create":
        server.guests[VMID] = ours(running=method in ("locate", "stop"))
    provider = make(PROXMOX_CALL_SECONDS="0.4") if how == "lost" else make()
    server.fail(call, how, times=9 if how == "dropped" else 1)  # a read is sent again on other connections
    wanted = expected(method, call, how)
    if wanted is None:
        await ACTS[method](provider)
    else:
        with pytest.raises(ProviderError) as failed:
            await ACTS[method](provider)
        assert type(failed.value) is wanted or (wanted is ProviderUnavailable and isinstance(failed.value, wanted))
        customer, operator = failed.value.message, failed.value.operator_message
        assert re.fullmatch(r"[A-Z][a-z ,]+\.", customer), "a sentence, without numbers or names of calls"
        assert re.search(r"/cluster/|/nodes/|task UPID:", operator), "the call at fault"
        assert SECRET not in operator
        assert TOKEN.partition("=")[2] not in operator
        if how == "task":
            assert "TASK ERROR" in operator
    server.heal()
    if wanted is ProviderRefused and method == "create":
        assert VMID not in server.guests, "a refusal leaves nothing"
    patient = make()

    async def gets_there() -> bool:
        """The operation's next try. A call that nobody waited for may be taken in late, in the middle of it: then the
        one after that."""
        try:
            await ACTS[method](patient)
        except ProviderUnavailable:
            assert how == "lost"
            server.heal()
            return False
        return True

    await until(gets_there)
    found = await patient.find(VMID)
    if method == "destroy":
        assert found is None
    else:
        assert found is not None
        assert found.operation_id == "op_first"
        assert found.is_running == (method in ("start", "locate"))
    assert len([guest for vmid, guest in server.guests.items() if vmid < 9000]) == (method != "destroy")


@pytest.mark.gen_test
async def test_a_clone_that_was_begun_and_not_answered_is_waited_for_not_made_twice(
    server: ProxmoxServer, make: Make
) -> None:
    provider = make()
    server.fail("clone", "unheard")
    creating = asyncio.ensure_future(provider.create(SPEC))

    async def is_begun() -> bool:
        return bool(server.asked("clone"))

    await until(is_begun)
    server.released.set()  # the connection ends
    with pytest.raises(ProviderUnavailable):
        await creating
    assert await provider.find(VMID) == Machine(VMID, "op_first", False, is_complete=False)
    with pytest.raises(ProviderRefused):
        await provider.start(VMID)  # it has no secret yet
    again = asyncio.ensure_future(make().create(SPEC))

    async def is_looking() -> bool:
        return len(server.asked("config")) > 3

    await until(is_looking)
    (task,) = server.tasks.values()
    task.finish()
    await again
    assert len(server.asked("clone")) == 1
    assert server.guests[VMID].config["env"].endswith(SECRET)


@pytest.mark.gen_test
async def test_a_lock_that_stays_is_told_to_the_operator_with_what_frees_it(server: ProxmoxServer, make: Make) -> None:
    provider = make(PROXMOX_TASK_SECONDS="0.3")
    server.guests[VMID] = Guest(
        "pve1", {"description": "controlplane mark=controlplane operation=op_first", "lock": "create"}
    )
    with pytest.raises(ProviderUnavailable) as locked:
        await provider.create(SPEC)
    assert f"pct unlock {VMID}" in locked.value.operator_message


@pytest.mark.gen_test
async def test_a_task_that_does_not_end_in_time_is_named_and_its_outcome_unknown(
    server: ProxmoxServer, make: Make
) -> None:
    provider = make(PROXMOX_TASK_SECONDS="0.3")
    server.task_polls = 1000
    with pytest.raises(ProviderUnavailable) as slow:
        await provider.create(SPEC)
    assert "UPID:pve1:" in slow.value.operator_message
    assert "vzclone" in slow.value.operator_message


@pytest.mark.gen_test
async def test_a_question_about_a_task_that_gets_no_answer_is_asked_again(
    server: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    server.fail("task", "dropped", times=2)
    server.fail("log", "refused")
    await provider.create(SPEC)
    assert await provider.find(VMID) == Machine(VMID, "op_first", False)


@pytest.mark.gen_test
async def test_a_protected_container_is_refused_and_stays(server: ProxmoxServer, provider: ProxmoxProvider) -> None:
    await provider.create(SPEC)
    server.guests[VMID].config["protection"] = 1
    with pytest.raises(ProviderRefused) as refused:
        await provider.destroy(VMID, operation_id="op_first")
    assert "protection mode" in refused.value.operator_message
    assert VMID in server.guests


@pytest.mark.gen_test
async def test_a_server_with_a_certificate_of_another_authority_is_not_spoken_to(
    server: ProxmoxServer, make: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ProxmoxServer(tmp_path_factory.mktemp("impostor")) as impostor:
        provider = make(PROXMOX_URL=impostor.url)
        with pytest.raises(ProviderUnavailable) as refused:
            await provider.find(VMID)
        assert "certificate" in refused.value.operator_message
        assert impostor.calls == []


@pytest.mark.gen_test
async def test_an_answer_without_end_is_not_read(server: ProxmoxServer, provider: ProxmoxProvider) -> None:
    server.guests[VMID] = Guest("pve1", {"description": "x" * (9 << 20)})
    with pytest.raises(ProviderUnavailable) as refused:
        await provider.find(VMID)
    assert "bytes" in refused.value.operator_message
