"""A pool of hosts that an administrator lists: each has its agent already, with a secret of its own. Satisfies
`ports.Provider`.

Making a machine claims a free host, removing it stops the workload and gives the host back. Its files stay as they
are, so it is out of the pool until an administrator has wiped it and counted its generation up in the list.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from controlplane.errors import AgentError, AgentRefused, Conflict, ProviderRefused, ProviderUnavailable, VmidTaken
from controlplane.models import AgentEndpoint, Machine, MachineAddress, MachineSpec, StaticClaim
from controlplane.ports import StaticClaimRepository
from controlplane.provider_settings import StaticHost, StaticSettings
from controlplane.provisioning.rest import UNAVAILABLE

_ALREADY_SO = 409


class Power(Protocol):
    """What is asked of agents (`agents.client` does it). Both raise AgentError."""

    def start(self, endpoint: AgentEndpoint, *, request_id: str) -> Awaitable[object]: ...

    def stop(self, endpoint: AgentEndpoint, *, request_id: str) -> Awaitable[object]: ...


class StaticProvider:
    name = "static"

    def __init__(self, claims: StaticClaimRepository, power: Power, settings: StaticSettings) -> None:
        self._claims = claims
        self._power = power
        self._hosts = {host.name: host for host in settings.hosts}

    async def find(self, vmid: int) -> Machine | None:
        claim = await self._claims.find(vmid)
        return None if claim is None else Machine(claim.vmid, claim.operation_id, claim.is_started)

    async def create(self, spec: MachineSpec) -> None:
        known = await self._claims.find(spec.vmid)
        if known is None:
            known = await self._claim(spec)
        if known.operation_id != spec.operation_id:
            raise VmidTaken(
                "The instance could not be made.", operator_message=f"host {known.host} has vmid {spec.vmid}: {known}"
            )

    async def start(self, vmid: int) -> None:
        claim = await self._claims.find(vmid)
        host = None if claim is None else self._hosts.get(claim.host)
        if claim is None or host is None:
            raise ProviderRefused(
                "The instance could not be started.",
                operator_message=f"no host of STATIC_HOSTS_FILE has vmid {vmid}: {claim}",
            )
        await self._ask(host, self._power.start(_endpoint(host), request_id=claim.operation_id))
        await self._claims.set_started(vmid, claim.operation_id, is_started=True)

    async def locate(self, vmid: int) -> MachineAddress | None:
        claim = await self._claims.find(vmid)
        host = None if claim is None else self._hosts.get(claim.host)
        if host is None:
            return None
        return MachineAddress(
            host.address, host.port, host.ide_port, host.https, game_port=host.game_port, agent_token=host.token
        )

    async def stop(self, vmid: int) -> None:
        claim = await self._claims.find(vmid)
        if claim is not None:
            await self._stop(claim)

    async def destroy(self, vmid: int, *, operation_id: str) -> None:
        claim = await self._claims.find(vmid)
        if claim is None:
            return
        if claim.operation_id != operation_id:
            raise ProviderRefused(
                "The instance could not be removed.", operator_message=f"{claim} is not of operation {operation_id}"
            )
        await self._stop(claim)  # a host whose workload may still run is not given back
        await self._claims.release(vmid, operation_id)

    async def list_marked(self) -> list[Machine]:
        claims = await self._claims.load_all()
        return [Machine(claim.vmid, claim.operation_id, claim.is_started) for claim in claims]

    async def close(self) -> None:
        """Nothing is open."""

    async def _claim(self, spec: MachineSpec) -> StaticClaim:
        for host in self._hosts.values():
            if spec.kind not in host.kinds:
                continue
            try:
                if await self._claims.claim(host.name, host.generation, spec.vmid, spec.operation_id):
                    return StaticClaim(host.name, spec.vmid, spec.operation_id, is_started=False)
            except Conflict as error:  # claimed for this vmid a moment ago, by whom?
                known = await self._claims.find(spec.vmid)
                if known is None:
                    raise ProviderUnavailable(
                        UNAVAILABLE, operator_message=f"vmid {spec.vmid} was claimed and given back just now"
                    ) from error
                return known
        raise ProviderRefused(
            "There is no room for another instance at the moment.",
            operator_message=f"no free host for a {spec.kind.value} in STATIC_HOSTS_FILE; one that was used is free "
            "again once its generation is counted up",
        )

    async def _stop(self, claim: StaticClaim) -> None:
        host = self._hosts.get(claim.host)
        if host is not None:  # else an administrator has taken it away
            await self._ask(host, self._power.stop(_endpoint(host), request_id=claim.operation_id))
        await self._claims.set_started(claim.vmid, claim.operation_id, is_started=False)

    async def _ask(self, host: StaticHost, call: Awaitable[object]) -> None:
        """An agent that refuses because it is in the state already is in the state that was wanted."""
        try:
            await call
        except AgentRefused as error:
            if error.status == _ALREADY_SO:
                return
            raise ProviderRefused(
                "The instance could not be started or stopped.",
                operator_message=f"the agent of host {host.name} refused: {error.status} {error.body!r:.200}",
            ) from error
        except AgentError as error:
            raise ProviderUnavailable(
                UNAVAILABLE, operator_message=f"the agent of host {host.name}: {error.message}"
            ) from error


def _endpoint(host: StaticHost) -> AgentEndpoint:
    return AgentEndpoint(host.address, host.port, host.token, host.https)
