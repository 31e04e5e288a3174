"""The typed container that handlers receive: what the application can do, already wired. No logic lives here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from controlplane.agents.cache import StateCache
from controlplane.agents.client import AgentClient
from controlplane.agents.poller import Poller
from controlplane.auth.api_keys import ApiKeyService
from controlplane.auth.authenticator import Authenticator
from controlplane.auth.live import LiveConnections
from controlplane.auth.reset import PasswordResetService
from controlplane.auth.sessions import SessionService
from controlplane.auth.tickets import ConsoleTickets
from controlplane.backups import BackupService
from controlplane.billing.parts import Billing
from controlplane.events import EventHub
from controlplane.ide.codeserver import CodeServer
from controlplane.ide.sessions import IdeSessions
from controlplane.ide.targets import Hosts
from controlplane.ide.tokens import IdeTokens
from controlplane.idempotency import Idempotency
from controlplane.instance_views import InstanceViews
from controlplane.instances import InstanceDirectory
from controlplane.observability.audit import AuditTrail
from controlplane.observability.loop_lag import LoopLag
from controlplane.observability.metrics import Metrics
from controlplane.ports import Clock, StorageProbe, UserRepository
from controlplane.provisioning.service import ProvisioningService
from controlplane.proxying.console_hub import ConsoleHub
from controlplane.proxying.http_upstream import Upstreams
from controlplane.proxying.splice import Splices
from controlplane.proxying.upload import Uploads
from controlplane.publishing.publisher import InstancePublisher
from controlplane.publishing.webhooks import Webhooks
from controlplane.rights import OwnerRights
from controlplane.settings import Settings


@dataclass(slots=True)
class Lifecycle:
    """Where the process is in its life. `problem` says why it is not serving yet, in words for an operator.

    `polls_here` is whether this process holds the polling lease; `fence` is that lease's.
    """

    serving: bool = False
    draining: bool = False
    problem: str = "starting"
    polls_here: bool = False
    fence: int = 0
    requests_under_way: int = 0
    _idle: list[asyncio.Future[None]] = field(default_factory=list)

    def request_began(self) -> None:
        self.requests_under_way += 1

    def request_ended(self) -> None:
        self.requests_under_way -= 1
        if self._idle and not self.requests_under_way:
            for waiting in self._idle:
                if not waiting.done():
                    waiting.set_result(None)
            self._idle.clear()

    def until_idle(self) -> asyncio.Future[None]:
        """Done when no request is under way."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.requests_under_way:
            self._idle.append(waiting)
        else:
            waiting.set_result(None)
        return waiting


@dataclass(frozen=True, slots=True)
class Ide:
    """The parts of the hosted IDE."""

    hosts: Hosts
    tokens: IdeTokens
    sessions: IdeSessions
    codeserver: CodeServer
    upstreams: Upstreams
    splices: Splices


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    clock: Clock
    lifecycle: Lifecycle
    metrics: Metrics
    loop_lag: LoopLag
    storage: StorageProbe
    users: UserRepository
    authenticator: Authenticator
    live: LiveConnections
    sessions: SessionService
    resets: PasswordResetService
    api_keys: ApiKeyService
    instances: InstanceDirectory
    instance_views: InstanceViews
    states: StateCache
    poller: Poller
    agents: AgentClient
    console_tickets: ConsoleTickets
    consoles: ConsoleHub
    events: EventHub
    rights: OwnerRights
    backups: BackupService
    uploads: Uploads
    ide: Ide
    webhooks: Webhooks
    publisher: InstancePublisher
    idempotency: Idempotency
    audit: AuditTrail
    provisioning: ProvisioningService
    billing: Billing | None
