"""What provisioning is made of: the provider that the settings name, the service and its jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import Counter

from controlplane.agents.addresses import check_agent_address
from controlplane.agents.client import AgentClient
from controlplane.errors import ConfigurationError
from controlplane.instances import InstanceDirectory
from controlplane.jobs import Job
from controlplane.models import Entitlement, Instance, InstanceKind
from controlplane.ports import Clock, Entitlements, Provider, Publisher
from controlplane.provisioning.agent_watch import AgentWatch, Patience
from controlplane.provisioning.board import OperationBoard
from controlplane.provisioning.effects import Effects
from controlplane.provisioning.entitlements import FixedEntitlements
from controlplane.provisioning.local import LocalProvider
from controlplane.provisioning.machine import Policy
from controlplane.provisioning.orphans import OrphanSweep
from controlplane.provisioning.runner import OperationRunner
from controlplane.provisioning.service import ProvisioningService
from controlplane.settings import Settings
from controlplane.wiring.database import Repositories
from controlplane.wiring.providers import make_lxd, make_proxmox, make_static

SOURCE_FOLDER = Path(__file__).resolve().parents[2]
LONGEST_RETRY_SECONDS = 60.0
ORPHAN_LEASES_PER_SWEEP = 3


def make_provider(settings: Settings, repositories: Repositories, agents: AgentClient) -> Provider | None:
    """The one that PROVIDER names; None for `none`. Raises ConfigurationError where it cannot be had."""
    if settings.provider == "local":
        if getattr(sys, "frozen", False):
            raise ConfigurationError("PROVIDER", "local needs a checkout: the binary cannot run agents")
        return LocalProvider(settings.local_provider_dir, SOURCE_FOLDER)
    if settings.provider == "proxmox":
        return make_proxmox(settings)
    if settings.provider == "lxd":
        return make_lxd(settings)
    if settings.provider == "static":
        return make_static(settings, repositories.static_claims, agents)
    return None


def make_entitlements(settings: Settings) -> Entitlements:
    """The same for every customer, from the settings: where nothing is billed."""
    return FixedEntitlements(
        Entitlement(
            instances={
                InstanceKind.GAME: settings.quota_game_servers,
                InstanceKind.DEV: settings.quota_dev_containers,
            },
            memory_mib=settings.quota_memory_mib,
            backups=settings.quota_backups,
            ide=True,
        )
    )


@dataclass(frozen=True, slots=True)
class Provisioning:
    """Everything that makes and unmakes instances. `orphans` is None without a provider."""

    provider: Provider | None
    board: OperationBoard
    service: ProvisioningService
    runner: OperationRunner
    orphans: OrphanSweep | None

    def jobs(self, settings: Settings) -> list[Job]:
        jobs = [
            Job("operations", self.runner.run_once, 0.5, 10),
            Job("operation-news", self.board.sync, 1, 10),
        ]
        if self.orphans is not None:
            sweep = settings.orphan_sweep_seconds
            jobs.append(Job("orphans", self.orphans.run_once, sweep, max(60.0, sweep)))
        return jobs

    async def close(self, *, limit_seconds: float) -> None:
        await self.runner.stop(limit_seconds=limit_seconds)
        if self.provider is not None:
            await self.provider.close()


def make_provisioning(
    settings: Settings,
    repositories: Repositories,
    *,
    provider: Provider | None,
    board: OperationBoard,
    publisher: Publisher,
    directory: InstanceDirectory,
    agents: AgentClient,
    clock: Clock,
    owner: str,
    ended: Counter,
    on_running: Callable[[Instance], None],
    entitlements: Entitlements,
) -> Provisioning:
    """`owner` names this process; `on_running` is told of each instance that is new or runs again."""
    provider_name = None if provider is None else provider.name
    patience = Patience(
        boot_seconds=settings.provision_boot_seconds,
        ready_seconds=settings.provision_ready_seconds,
        ready_checks=settings.provision_ready_checks,
        ready_interval_seconds=settings.provision_ready_interval_seconds,
    )
    effects = Effects(
        provider=provider,
        reservations=repositories.vmids,
        directory=directory,
        agents=agents,
        watch=AgentWatch(agents, clock, patience),
        publisher=publisher,
        clock=clock,
        vmids=range(settings.vmid_first, settings.vmid_last + 1),
        check_address=partial(check_agent_address, networks=settings.agent_networks),
        on_running=on_running,
    )
    runner = OperationRunner(
        repositories.operations,
        effects,
        board,
        clock,
        name=owner,
        provider=provider_name,
        policy=Policy(
            attempts=settings.provision_attempts,
            undo_attempts=settings.provision_undo_attempts,
            retry_seconds=settings.provision_retry_seconds,
            longest_retry_seconds=LONGEST_RETRY_SECONDS,
        ),
        lease_seconds=settings.operation_lease_seconds,
        step_seconds=settings.provision_step_seconds + max(patience.boot_seconds, patience.ready_seconds),
        ended=ended,
        concurrency=settings.operation_concurrency,
    )
    service = ProvisioningService(
        operations=repositories.operations,
        leases=repositories.leases,
        directory=directory,
        entitlements=entitlements,
        board=board,
        runner=runner,
        effects=effects,
        clock=clock,
        owner=owner,
        provider=provider_name,
        under_way_per_user=settings.operations_per_user,
    )
    orphans = None
    if provider is not None:
        orphans = OrphanSweep(
            provider=provider,
            operations=repositories.operations,
            reservations=repositories.vmids,
            directory=directory,
            leases=repositories.leases,
            clock=clock,
            owner=owner,
            lease_seconds=max(60.0, ORPHAN_LEASES_PER_SWEEP * settings.orphan_sweep_seconds),
            grace_seconds=settings.orphan_grace_seconds,
        )
    return Provisioning(provider, board, service, runner, orphans)
