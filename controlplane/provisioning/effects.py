"""What each phase of an operation does, and how it is taken back. Every effect is safe to do again.

Before anything is done to a machine, its mark is looked at: only one that carries this operation's is touched. Which
effect is due, and what a failure means, is decided in `machine`; when, by the runner.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from controlplane.agents.client import AgentClient
from controlplane.errors import (
    AgentRefused,
    InvalidInput,
    NotFound,
    ProviderRefused,
    VmidTaken,
)
from controlplane.instances import InstanceDirectory
from controlplane.models import (
    AgentEndpoint,
    Instance,
    Machine,
    MachineAddress,
    MachineSpec,
    Operation,
    OperationKind,
    Phase,
    Suspension,
)
from controlplane.ports import Clock, Provider, Publisher, VmidReservations
from controlplane.provisioning.agent_watch import AgentWatch
from controlplane.provisioning.plans import size_of

Facts = Mapping[str, Any]
"""What became known: fields of the operation."""

Effect = Callable[[Operation], Awaitable[Facts]]
_NOTHING_NEW: Facts = {}
HOSTNAME_WORDS = 40  # characters of the 63 of a label; an id has 16


class Effects:
    """`provider` is None where this control plane makes no machines; `vmids` is the range to take them from."""

    def __init__(
        self,
        *,
        provider: Provider | None,
        reservations: VmidReservations,
        directory: InstanceDirectory,
        agents: AgentClient,
        watch: AgentWatch,
        publisher: Publisher,
        clock: Clock,
        vmids: range,
        check_address: Callable[[str], None],
        on_running: Callable[[Instance], None],
    ) -> None:
        self._provider = provider
        self._reservations = reservations
        self._directory = directory
        self._agents = agents
        self._watch = watch
        self._publisher = publisher
        self._clock = clock
        self._vmids = vmids
        self._check_address = check_address
        self._on_running = on_running
        self._forward: Mapping[tuple[OperationKind, Phase], Effect] = {
            (OperationKind.PROVISION, Phase.REQUESTED): self._reserve,
            (OperationKind.PROVISION, Phase.RESERVED): self._require_free,
            (OperationKind.PROVISION, Phase.CREATING): self._create,
            (OperationKind.PROVISION, Phase.BOOTING): self._boot,
            (OperationKind.PROVISION, Phase.AGENT_CONNECTED): self._recognize,
            (OperationKind.PROVISION, Phase.READY_CHECK): self._wait_until_ready,
            (OperationKind.PROVISION, Phase.PERSISTING): self._persist,
            (OperationKind.PROVISION, Phase.PUBLISHING): self._publish_new,
            (OperationKind.DELETE, Phase.UNPUBLISHING): self._withdraw,
            (OperationKind.DELETE, Phase.STOPPING): self._stop_machine,
            (OperationKind.DELETE, Phase.DESTROYING): self._destroy_and_forget,
            (OperationKind.SUSPEND, Phase.UNPUBLISHING): self._withdraw,
            (OperationKind.SUSPEND, Phase.SUSPENDING): self._suspend,
            (OperationKind.SUSPEND, Phase.STOPPING): self._stop,
            (OperationKind.UNSUSPEND, Phase.STARTING): self._start,
            (OperationKind.UNSUSPEND, Phase.LIFTING): self._lift,
            (OperationKind.UNSUSPEND, Phase.READY_CHECK): self._wait_until_ready,
            (OperationKind.UNSUSPEND, Phase.PUBLISHING): self._publish,
        }
        self._backward: Mapping[Phase, Effect] = {
            Phase.PUBLISHING: self._withdraw,
            Phase.PERSISTING: self._forget,
            Phase.CREATING: self._destroy,
            Phase.REQUESTED: self._release,
        }

    async def do(self, operation: Operation) -> Facts:
        """The effect of the present phase. Raises ControlPlaneError; VmidTaken when another vmid has to be taken."""
        return await self._forward[operation.kind, operation.phase](operation)

    async def undo(self, operation: Operation, phase: Phase) -> None:
        """Take back what this phase did, or may have done."""
        await self._backward[phase](operation)

    def left_by(self, operation: Operation, phase: Phase) -> str:
        """For an operator: what stays when `phase` cannot be taken back."""
        return {
            Phase.PUBLISHING: f"published routes of {operation.instance_id}",
            Phase.PERSISTING: f"the record of instance {operation.instance_id}",
            Phase.CREATING: f"machine {operation.vmid} at provider {operation.provider}, marked {operation.mark}",
            Phase.REQUESTED: f"the reservation of vmid {operation.vmid}",
        }[phase]

    # -- provisioning, forward ---------------------------------------------------------------------------------------

    async def _reserve(self, operation: Operation) -> Facts:
        vmid = await self._reservations.reserve(operation.id, self._vmids[0], self._vmids[-1], self._directory.has_vmid)
        if vmid is None:
            raise ProviderRefused(
                "There is no room for another instance at the moment.",
                operator_message=f"every vmid from {self._vmids[0]} to {self._vmids[-1]} is taken: widen VMID_LAST",
            )
        return {"vmid": vmid}

    async def _require_free(self, operation: Operation) -> Facts:
        await self._look(operation)
        return _NOTHING_NEW

    async def _create(self, operation: Operation) -> Facts:
        machine = await self._look(operation)
        if machine is not None and machine.is_complete:
            return _NOTHING_NEW  # made by an earlier try whose outcome nobody knew
        size = size_of(operation)
        spec = MachineSpec(
            vmid=_vmid(operation),
            operation_id=operation.mark or operation.id,
            kind=operation.instance_kind,
            hostname=hostname(operation),
            cores=size.cores,
            memory_mib=size.memory_mib,
            disk_gib=size.disk_gib,
            agent_token=self._directory.open_token(operation.instance_id, operation.sealed_token or b""),
        )
        try:
            await self._present_provider.create(spec)
        except VmidTaken:
            # By an earlier try of our own that ended after we had looked? Then `_look` finds it; else it raises this.
            if await self._look(operation) is None:
                raise
        return _NOTHING_NEW

    async def _boot(self, operation: Operation) -> Facts:
        await self._present_provider.start(_vmid(operation))
        where = await self._wait_for_agent(operation)
        if where.agent_token is None:
            return {"address": where}
        sealed = self._directory.seal_token(operation.instance_id, where.agent_token)
        return {"address": replace(where, agent_token=None), "sealed_token": sealed}

    async def _wait_for_agent(self, operation: Operation) -> MachineAddress:
        """Where it is, once there is an agent there that answers."""

        def endpoint_of(where: MachineAddress) -> AgentEndpoint:
            self._require_allowed(where)
            return self._endpoint(operation, where)

        vmid = _vmid(operation)
        locate = partial(self._present_provider.locate, vmid)
        return await self._watch.until_answering(locate, endpoint_of, f"machine {vmid}")

    def _require_allowed(self, where: MachineAddress) -> None:
        try:
            self._check_address(where.address)
        except InvalidInput as error:
            raise ProviderRefused(
                "The instance could not be reached.",
                operator_message=f"the provider says {where.address}, where no agent may live: see AGENT_NETWORKS",
            ) from error

    async def _recognize(self, operation: Operation) -> Facts:
        await self._require_ours(operation)
        return _NOTHING_NEW

    async def _wait_until_ready(self, operation: Operation) -> Facts:
        await self._watch.until_ready(self._present_endpoint(operation), f"machine {operation.vmid}")
        return _NOTHING_NEW

    async def _persist(self, operation: Operation) -> Facts:
        known = await self._directory.fetch(operation.instance_id)
        if known is None:
            await self._require_ours(operation)
            await self._agents.assert_agent_ready(self._present_endpoint(operation))
            known = await self._directory.admit(self._instance(operation))
        self._on_running(known)
        return _NOTHING_NEW

    def _instance(self, operation: Operation) -> Instance:
        where = _address(operation)
        return Instance(
            id=operation.instance_id,
            kind=operation.instance_kind,
            vmid=_vmid(operation),
            name=operation.name,
            owner_id=operation.owner_id,
            address=where.address,
            port=where.port,
            https=where.https,
            ide_port=where.ide_port,
            sealed_token=operation.sealed_token or b"",
            created_at=self._clock.now(),
            provider=operation.provider,
            operation_id=operation.mark,
            memory_mib=size_of(operation).memory_mib,
            game_port=where.game_port,
            published=False,
        )

    async def _publish_new(self, operation: Operation) -> Facts:
        await self._publish(operation)
        await self._reservations.release(operation.id)  # the instance's record has the vmid now
        return _NOTHING_NEW

    # -- provisioning, backward --------------------------------------------------------------------------------------

    async def _destroy(self, operation: Operation) -> Facts:
        if operation.vmid is not None:
            with contextlib.suppress(VmidTaken):  # a neighbour's: not ours to touch, and nothing of ours is there
                if await self._look(operation) is not None:
                    await self._present_provider.destroy(operation.vmid, operation_id=operation.mark or operation.id)
        return _NOTHING_NEW

    async def _forget(self, operation: Operation) -> Facts:
        with contextlib.suppress(NotFound):
            await self._directory.remove(operation.instance_id)
        return _NOTHING_NEW

    async def _release(self, operation: Operation) -> Facts:
        await self._reservations.release(operation.id)
        return _NOTHING_NEW

    async def release_vmid(self, operation: Operation) -> None:
        """Give back the reserved vmid: it is somebody else's machine, or an administrator gave up on it."""
        await self._reservations.release(operation.id)

    # -- deletion ----------------------------------------------------------------------------------------------------

    async def _withdraw(self, operation: Operation) -> Facts:
        instance = await self._directory.fetch(operation.instance_id)
        if instance is not None:
            await self._publisher.withdraw(instance)
        return _NOTHING_NEW

    async def _stop_machine(self, operation: Operation) -> Facts:
        machine = await self._look(operation)
        if machine is not None and machine.is_running:
            await self._present_provider.stop(machine.vmid)
        return _NOTHING_NEW

    async def _destroy_and_forget(self, operation: Operation) -> Facts:
        machine = await self._look(operation)
        if machine is not None:
            await self._present_provider.destroy(machine.vmid, operation_id=operation.mark or operation.id)
        instance = await self._directory.fetch(operation.instance_id)
        if instance is not None:
            await self._publisher.retire(instance)
        return await self._forget(operation)

    # -- suspension --------------------------------------------------------------------------------------------------

    async def _suspend(self, operation: Operation) -> Facts:
        instance = await self._present_instance(operation)
        if instance.suspension is None:
            suspension = Suspension(operation.reason or "suspended", self._clock.now())
            await self._directory.set_suspension(instance.id, suspension)
        return _NOTHING_NEW

    async def _stop(self, operation: Operation) -> Facts:
        """The machine where we made it; else the workload, through its agent."""
        if operation.provider is not None:
            return await self._stop_machine(operation)
        endpoint = self._directory.endpoint(await self._present_instance(operation))
        await _unless_so_already(self._agents.stop(endpoint, request_id=operation.id))
        return _NOTHING_NEW

    async def _start(self, operation: Operation) -> Facts:
        instance = await self._present_instance(operation)
        if operation.provider is None:
            endpoint = self._directory.endpoint(instance)
            await _unless_so_already(self._agents.start(endpoint, request_id=operation.id))
            return {"address": MachineAddress(instance.address, instance.port, instance.ide_port, instance.https)}
        await self._require_ours(operation, is_to_run=False)
        await self._present_provider.start(_vmid(operation))
        where = await self._wait_for_agent(operation)
        await self._directory.move(instance.id, where)
        return {"address": replace(where, agent_token=None)}

    async def _lift(self, operation: Operation) -> Facts:
        """Before it is ready: whoever paid may look after a workload that does not get ready by itself."""
        instance = await self._present_instance(operation)
        self._on_running(await self._directory.set_suspension(instance.id, None))
        return _NOTHING_NEW

    async def _publish(self, operation: Operation) -> Facts:
        await self._publisher.publish(await self._present_instance(operation))
        return _NOTHING_NEW

    # -- what is there -----------------------------------------------------------------------------------------------

    @property
    def _present_provider(self) -> Provider:
        if self._provider is None:
            raise ProviderRefused(
                "This cannot be done at the moment.",
                operator_message="PROVIDER is none: this process makes no machines",
            )
        return self._provider

    async def _look(self, operation: Operation) -> Machine | None:
        """The machine under the operation's vmid, if it is ours. Raises VmidTaken when it is somebody else's."""
        vmid = _vmid(operation)
        machine = await self._present_provider.find(vmid)
        if machine is not None and machine.operation_id != operation.mark:
            raise VmidTaken(
                "The instance's place is taken.",
                operator_message=f"machine {vmid} at provider {operation.provider} carries the mark "
                f"{machine.operation_id}, not {operation.mark}: it is not touched",
            )
        return machine

    async def _require_ours(self, operation: Operation, *, is_to_run: bool = True) -> None:
        machine = await self._look(operation)
        if machine is None or (is_to_run and not machine.is_running):
            what = "is gone" if machine is None else "does not run"
            raise ProviderRefused(
                "The instance stopped unexpectedly.", operator_message=f"machine {operation.vmid} {what}"
            )

    async def _present_instance(self, operation: Operation) -> Instance:
        instance = await self._directory.fetch(operation.instance_id)
        if instance is None:
            raise ProviderRefused(
                "The instance is gone.", operator_message=f"there is no record of {operation.instance_id}"
            )
        return instance

    def _present_endpoint(self, operation: Operation) -> AgentEndpoint:
        return self._endpoint(operation, _address(operation))

    def _endpoint(self, operation: Operation, where: MachineAddress) -> AgentEndpoint:
        if where.agent_token is not None:
            token = where.agent_token
        elif operation.sealed_token is None:
            instance = self._directory.get(operation.instance_id)
            if instance is None:
                raise NotFound
            token = self._directory.endpoint(instance).token
        else:
            token = self._directory.open_token(operation.instance_id, operation.sealed_token)
        return AgentEndpoint(where.address, where.port, token, where.https)


async def _unless_so_already(call: Awaitable[object]) -> None:
    """An agent that refuses because of the state that it is in (409) is in the state that was wanted."""
    try:
        await call
    except AgentRefused as error:
        if error.status != 409:
            raise


def hostname(operation: Operation) -> str:
    """A DNS label (RFC 1123 section 2.1): what the name has in letters and digits, and the id, which is unique."""
    words = re.sub(r"[^a-z0-9]+", "-", operation.name.lower()).strip("-")[:HOSTNAME_WORDS].rstrip("-")
    kind, _, unique = operation.instance_id.partition("_")
    return f"{words or kind}-{unique}"


def _vmid(operation: Operation) -> int:
    if operation.vmid is None:
        raise ProviderRefused("The instance has no place.", operator_message=f"{operation.id} has no vmid")
    return operation.vmid


def _address(operation: Operation) -> MachineAddress:
    if operation.address is None:
        raise ProviderRefused("The instance has no address.", operator_message=f"{operation.id} has no address")
    return operation.address
