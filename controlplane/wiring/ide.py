"""The hosted IDE, put together."""

from __future__ import annotations

from controlplane.agents.cache import StateCache
from controlplane.agents.client import AgentClient
from controlplane.auth.authenticator import Authenticator
from controlplane.auth.live import LiveConnections
from controlplane.ide.codeserver import CodeServer
from controlplane.ide.sessions import IdeSessions
from controlplane.ide.targets import Hosts
from controlplane.ide.tokens import IdeTokens
from controlplane.instances import InstanceDirectory
from controlplane.jobs import Job
from controlplane.observability.metrics import Metrics
from controlplane.ports import Clock
from controlplane.proxying.http_upstream import Dial, Upstreams
from controlplane.proxying.splice import Splices
from controlplane.rights import OwnerRights
from controlplane.services import Ide
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.storage.ide import MongoIdeSessionRepository, MongoIdeTokenRepository


def build_ide(
    settings: Settings,
    database: Database,
    *,
    authenticator: Authenticator,
    live: LiveConnections,
    directory: InstanceDirectory,
    rights: OwnerRights,
    states: StateCache,
    agents: AgentClient,
    clock: Clock,
    metrics: Metrics,
    dial: Dial,
) -> Ide:
    sessions = MongoIdeSessionRepository(database)
    splices = Splices(clock.monotonic, idle_seconds=settings.dev_ide_socket_idle_seconds)
    metrics.ide_websockets.set_function(lambda: len(splices))
    return Ide(
        hosts=Hosts.of(settings),
        tokens=IdeTokens(
            MongoIdeTokenRepository(database),
            sessions,
            authenticator,
            states.get,
            clock,
            token_seconds=settings.dev_ide_token_seconds,
            idle_seconds=settings.dev_ide_session_idle_seconds,
            max_seconds=settings.dev_ide_session_max_seconds,
        ),
        sessions=IdeSessions(
            sessions,
            authenticator,
            live,
            directory,
            rights,
            clock,
            idle_seconds=settings.dev_ide_session_idle_seconds,
        ),
        codeserver=CodeServer(agents),
        upstreams=Upstreams(dial, clock.monotonic),
        splices=splices,
    )


def ide_jobs(ide: Ide) -> tuple[Job, ...]:
    return (
        Job("ide-sessions", ide.sessions.revalidate, 1.5, 10),
        Job("ide-upstreams", ide.upstreams.run_once, 1, 5),
        Job("ide-websockets", ide.splices.run_once, 5, 5),
    )
