"""The provisioning services on fakes, wired as the composition root does it. Time passes only when somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from controlplane.agents.client import AgentClient
from controlplane.errors import ProviderRefused, ProviderUnavailable
from controlplane.instances import InstanceDirectory
from controlplane.models import Entitlement, Instance, InstanceKind, Operation, Principal, Role, User
from controlplane.observability.metrics import Metrics
from controlplane.ports import AgentResponse
from controlplane.provisioning.agent_watch import AgentWatch, Patience
from controlplane.provisioning.board import OperationBoard
from controlplane.provisioning.effects import Effects
from controlplane.provisioning.entitlements import FixedEntitlements
from controlplane.provisioning.machine import Policy
from controlplane.provisioning.orphans import OrphanSweep
from controlplane.provisioning.runner import OperationRunner
from controlplane.provisioning.service import ProvisioningService
from controlplane.secretbox import SecretBox
from tests.fake_provisioning import (
    FakeLeaseRepository,
    FakeOperationRepository,
    FakeProvider,
    FakePublisher,
    FakeVmidReservations,
)
from tests.fake_repositories import FakeInstanceRepository, FakeUserRepository
from tests.fakes import FakeClock, FakeTransport

ADA = Principal("usr_ada", "ada@example.org", Role.CUSTOMER, "ses_1")
BOB = Principal("usr_bob", "bob@example.org", Role.CUSTOMER, "ses_2")
ROOT = Principal("usr_root", "root@example.org", Role.ADMIN, "ses_3")
POLICY = Policy(attempts=3, undo_attempts=3, retry_seconds=2, longest_retry_seconds=60)
LEASE_SECONDS = 15.0
STEP_SECONDS = 600.0
GRACE_SECONDS = 600.0
PORT = 9000
"""Of the first machine's agent."""

NEVER_READY = AgentResponse(200, {}, b'{"ready": false, "state": "running", "reason": "no map"}')


class ProvisioningHouse:
    """`second_runner` is another process on the same database and provider."""

    def __init__(self, *, limit: int = 5, vmids: range = range(10_000, 10_100)) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.operations = FakeOperationRepository(self.clock)
        self.reservations = FakeVmidReservations()
        self.leases = FakeLeaseRepository(self.clock)
        self.instances = FakeInstanceRepository()
        self.users = FakeUserRepository()
        self.provider = FakeProvider()
        self.publisher = FakePublisher()
        self.transport = FakeTransport()
        self.stored: list[Instance] = []
        self.seen: list[Operation] = []
        self.directory = InstanceDirectory(
            self.instances, self.users, SecretBox(bytes(32)), self.clock, check_address=lambda _address: None
        )
        self.entitlements = FixedEntitlements(
            Entitlement(dict.fromkeys(InstanceKind, limit), memory_mib=2048, backups=1, ide=True)
        )
        self.board = OperationBoard(self.operations)
        self.board.add_listener(self.seen.append)
        agents = AgentClient(
            self.transport,
            poll_timeout_seconds=1,
            action_timeout_seconds=1,
            backup_timeout_seconds=1,
            body_limit_bytes=1 << 16,
        )
        patience = Patience(boot_seconds=60, ready_seconds=120, ready_checks=3, ready_interval_seconds=1)
        self.effects = Effects(
            provider=self.provider,
            reservations=self.reservations,
            directory=self.directory,
            agents=agents,
            watch=AgentWatch(agents, self.clock, patience, self.sleep),
            publisher=self.publisher,
            clock=self.clock,
            vmids=vmids,
            check_address=lambda _address: None,
            on_running=self.stored.append,
        )
        self.runner = self.make_runner("first")
        self.second_runner = self.make_runner("second")
        self.service = self.make_service("fake")
        self.sweep = OrphanSweep(
            provider=self.provider,
            operations=self.operations,
            reservations=self.reservations,
            directory=self.directory,
            leases=self.leases,
            clock=self.clock,
            owner="first",
            lease_seconds=60,
            grace_seconds=GRACE_SECONDS,
        )

    def make_runner(self, name: str, *, lease_seconds: float = LEASE_SECONDS) -> OperationRunner:
        return OperationRunner(
            self.operations,
            self.effects,
            self.board,
            self.clock,
            name=name,
            provider="fake",
            policy=POLICY,
            lease_seconds=lease_seconds,
            step_seconds=STEP_SECONDS,
            concurrency=16,
            ended=self.metrics.operations_ended,
        )

    def make_service(self, provider: str | None) -> ProvisioningService:
        return ProvisioningService(
            operations=self.operations,
            leases=self.leases,
            directory=self.directory,
            entitlements=self.entitlements,
            board=self.board,
            runner=self.runner,
            effects=self.effects,
            clock=self.clock,
            owner="first",
            provider=provider,
            under_way_per_user=3,
        )

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def begin(self) -> None:
        await self.service.load()

    async def ask(self, name: str = "Oakvale", *, by: Principal = ADA, key: str | None = None) -> Operation:
        return await self.service.provision(by, InstanceKind.GAME, name=name, plan="small", key=key)

    async def settle(self) -> None:
        """Until nothing is left to do, however often something has to be waited for."""
        for _ in range(50):
            await self.runner.until_idle()
            if not await self.operations.list_active():
                return
            self.clock.advance(5)
            await self.runner.run_once()
        raise AssertionError(f"still under way: {await self.operations.list_active()}")

    async def ended(self, operation: Operation) -> Operation:
        await self.settle()
        return self.operations.operations[operation.id]

    async def instance(self, by: Principal = ADA) -> Instance:
        """Provisioned, and ready."""
        operation = await self.ended(await self.ask(by=by))
        found = self.directory.get(operation.instance_id)
        assert found is not None, operation
        return found

    def user(self, principal: Principal) -> User:
        user = User(principal.user_id, principal.email, "", principal.role, self.clock.now(), self.clock.now())
        self.users.users[user.id] = user
        return user


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
