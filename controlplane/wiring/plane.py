"""The composition root: builds the adapters, hands them to the services, starts and stops everything in order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from controlplane.agents.addresses import check_agent_address
from controlplane.agents.cache import StateCache
from controlplane.agents.client import PATHS, AgentClient
from controlplane.agents.http_connection import HttpTransport
from controlplane.agents.poller import Poller, PollTarget
from controlplane.auth.api_keys import ApiKeyService
from controlplane.auth.authenticator import Authenticator
from controlplane.auth.live import LiveConnections
from controlplane.auth.passwords import PasswordHasher
from controlplane.auth.reset import PasswordResetService
from controlplane.auth.sessions import SessionService
from controlplane.auth.throttle import LoginThrottle
from controlplane.auth.tickets import ConsoleTickets
from controlplane.auth.tokens import AccessTokens
from controlplane.backups import BackupService
from controlplane.clock import SystemClock
from controlplane.errors import AgentUnreachable, InvalidInput, StorageError, StorageUnavailable
from controlplane.events import EventHub
from controlplane.idempotency import RENEWAL_SECONDS, Idempotency
from controlplane.instance_views import InstanceViews
from controlplane.instances import InstanceDirectory
from controlplane.jobs import Job, JobRunner
from controlplane.mail import LogMailer, SmtpMailer
from controlplane.models import AgentEndpoint, Instance
from controlplane.observability.audit import AuditTrail
from controlplane.observability.loop_lag import LoopLag
from controlplane.observability.metrics import Metrics
from controlplane.ports import Clock, Mailer, Provider
from controlplane.provisioning.board import OperationBoard
from controlplane.proxying.agent_socket import open_agent_socket
from controlplane.proxying.console_hub import ConsoleHub
from controlplane.proxying.upgrade import open_websocket
from controlplane.proxying.upload import Uploads
from controlplane.proxying.websocket import WebSocket
from controlplane.rights import OwnerRights
from controlplane.secretbox import SecretBox
from controlplane.services import Lifecycle, Services
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.wiring.billing import billing_jobs, make_billing, make_billing_base
from controlplane.wiring.database import Repositories, prepare_database
from controlplane.wiring.ide import build_ide, ide_jobs
from controlplane.wiring.provisioning import make_entitlements, make_provider, make_provisioning
from controlplane.wiring.publishing import make_publishing

logger = logging.getLogger(__name__)

POLLING_LEASE = "agent-poller"
LEASE_SECONDS = 10.0
LEASE_RENEWAL_SECONDS = 3.0
CONNECT_RETRY_SECONDS = 2.0
STOP_SECONDS = 5.0
_FORGOTTEN_LIMIT = 10_000


class ControlPlane:
    """Everything but the listening socket. Build it, `start` it, hand `services` to the handlers, `stop` it.

    `provider` stands in the place of the one that the settings name.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        provider: Provider | None = None,
        billing_clock: Clock | None = None,
    ) -> None:
        """`provider` and `billing_clock` stand in for what the settings say and for the system's clock."""
        self._database = database
        self._repositories = repositories = Repositories.on(database)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._forgotten: dict[str, None] = {}
        clock = SystemClock()
        metrics = Metrics()
        secret_box = SecretBox(settings.credentials_key)
        self._hasher = PasswordHasher(settings.bcrypt_cost)
        self._mailer: Mailer = LogMailer() if settings.smtp is None else SmtpMailer(settings.smtp)
        check_dial = partial(_check_dial, settings)
        tls = _agent_tls(settings)
        self._transport = HttpTransport(check_dial=check_dial, tls=tls)
        throttle = LoginThrottle(clock)
        tokens = AccessTokens(settings.jwt_secret, settings.jwt_previous_secret, settings.access_token_seconds, clock)
        authenticator = Authenticator(tokens, repositories.users, repositories.sessions, repositories.api_keys, clock)
        directory = InstanceDirectory(
            repositories.instances,
            repositories.users,
            secret_box,
            clock,
            check_address=partial(check_agent_address, networks=settings.agent_networks),
        )
        states = StateCache(repositories.states, clock)
        agents = AgentClient(
            self._transport,
            poll_timeout_seconds=settings.agent_timeout_seconds,
            action_timeout_seconds=settings.agent_action_timeout_seconds,
            backup_timeout_seconds=settings.agent_backup_timeout_seconds,
            body_limit_bytes=settings.agent_body_limit_bytes,
        )
        board = OperationBoard(repositories.operations)
        views = InstanceViews(directory, states, clock, board, stale_after_seconds=settings.agent_stale_after_seconds)
        events = EventHub(directory, views)
        board.add_listener(events.on_operation_change)
        live = LiveConnections(authenticator)
        audit = AuditTrail(repositories.audit, clock, metrics.audit_dropped)
        console_tickets = ConsoleTickets(repositories.console_tickets, authenticator, clock)
        dial = partial(
            open_agent_socket, check_dial=check_dial, tls=tls, timeout_seconds=settings.agent_timeout_seconds
        )
        self._publishing = make_publishing(
            database,
            repositories,
            directory=directory,
            secret_box=secret_box,
            clock=clock,
            owner=self._owner,
        )
        billing_base = make_billing_base(settings.billing, database)
        entitlements = make_entitlements(settings) if billing_base is None else billing_base.entitlements
        rights = OwnerRights(entitlements)
        self.provisioning = make_provisioning(
            settings,
            repositories,
            provider=provider or make_provider(settings, repositories, agents),
            board=board,
            publisher=self._publishing.publisher,
            directory=directory,
            agents=agents,
            clock=clock,
            owner=self._owner,
            ended=metrics.operations_ended,
            on_running=self._look_at_once,
            entitlements=entitlements,
        )
        self._billing = make_billing(
            billing_base,
            database,
            service_url=settings.public_url,
            users=repositories.users,
            leases=repositories.leases,
            directory=directory,
            effects=self.provisioning.service,
            audit=audit,
            events=events,
            mailer=self._mailer,
            metrics=metrics,
            clock=billing_clock or clock,
            owner=self._owner,
        )
        self.services = Services(
            settings=settings,
            clock=clock,
            lifecycle=Lifecycle(),
            metrics=metrics,
            loop_lag=LoopLag(metrics.loop_lag_seconds),
            storage=database,
            users=repositories.users,
            authenticator=authenticator,
            live=live,
            sessions=SessionService(
                users=repositories.users,
                sessions=repositories.sessions,
                hasher=self._hasher,
                tokens=tokens,
                throttle=throttle,
                authenticator=authenticator,
                mailer=self._mailer,
                clock=clock,
                session_max_days=settings.session_max_days,
            ),
            resets=PasswordResetService(
                users=repositories.users,
                sessions=repositories.sessions,
                reset_tokens=repositories.reset_tokens,
                hasher=self._hasher,
                throttle=throttle,
                authenticator=authenticator,
                mailer=self._mailer,
                clock=clock,
                public_url=settings.public_url,
                reset_token_minutes=settings.reset_token_minutes,
            ),
            api_keys=ApiKeyService(api_keys=repositories.api_keys, authenticator=authenticator, clock=clock),
            instances=directory,
            instance_views=views,
            events=events,
            uploads=Uploads(
                dial,
                directory,
                limit_bytes=settings.upload_limit_bytes,
                per_user=settings.uploads_per_user,
                idle_seconds=settings.upload_idle_seconds,
                answer_seconds=settings.agent_action_timeout_seconds,
            ),
            ide=build_ide(
                settings,
                database,
                authenticator=authenticator,
                live=live,
                directory=directory,
                rights=rights,
                states=states,
                agents=agents,
                clock=clock,
                metrics=metrics,
                dial=dial,
            ),
            rights=rights,
            backups=BackupService(agents, directory, events, repositories.leases, self._owner),
            states=states,
            poller=Poller(
                agents,
                states,
                clock,
                metrics,
                interval_seconds=settings.agent_poll_interval_seconds,
                concurrency=settings.agent_poll_concurrency,
                random=random.random,
            ),
            agents=agents,
            console_tickets=console_tickets,
            consoles=ConsoleHub(
                directory=directory,
                authenticator=authenticator,
                live=live,
                tickets=console_tickets,
                audit=audit,
                clock=clock,
                metrics=metrics,
                dial=partial(
                    _dial_console, check_dial=check_dial, tls=tls, timeout_seconds=settings.agent_timeout_seconds
                ),
            ),
            webhooks=self._publishing.webhooks,
            publisher=self._publishing.publisher,
            idempotency=Idempotency(repositories.idempotency, secret_box, clock),
            audit=audit,
            provisioning=self.provisioning.service,
            billing=self._billing,
        )
        self._jobs = JobRunner(metrics.job_failures)
        if self._billing is not None:
            self._billing.news.add_listener(self.services.ide.sessions.review)
        directory.add_listener(self._on_instance_change)
        states.add_listener(self.services.consoles.on_state_change)
        states.add_listener(self.services.events.on_state_change)

    # -- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Wait for the database, bring it up to date, take in what it holds, start the jobs.

        Raises StorageError when the database cannot be used by this version; while it cannot be reached this says so
        in the log and in `lifecycle.problem`, and tries again.
        """
        self.services.loop_lag.start()
        while True:
            try:
                await self._take_up()
                break
            except StorageUnavailable as error:
                self.services.lifecycle.problem = error.message
                where = "MONGODB_URI" if self.services.settings.mongodb_uri else "the embedded database"
                logger.warning(
                    "the database cannot be used yet; trying again",
                    extra={"where": where, "why": error.message, "retrySeconds": CONNECT_RETRY_SECONDS},
                )
                await asyncio.sleep(CONNECT_RETRY_SECONDS)
        self._start_jobs()
        self.services.lifecycle.serving = True

    async def _take_up(self) -> None:
        await prepare_database(self._database)
        await self.services.states.load()
        await self.services.instances.load()
        await self.provisioning.service.load()
        await self._renew_polling_lease()

    def _start_jobs(self) -> None:
        services = self.services
        for job in (
            Job("poll", self._poll, 0.05, 5),
            Job("polling-lease", self._renew_polling_lease, LEASE_RENEWAL_SECONDS, LEASE_SECONDS),
            Job("states", self._exchange_states, 1, 30),
            Job("instances", services.instances.sync, 1, 10),
            Job("revalidate", services.authenticator.revalidate, 1.5, 10),
            Job("consoles", services.consoles.run_once, 1, 10),
            Job("live", services.live.check, 1.5, 10),
            Job("audit", services.audit.flush, 5, 30),
            Job("idempotency", services.idempotency.renew_claims, RENEWAL_SECONDS, RENEWAL_SECONDS),
            *ide_jobs(services.ide),
            *self._publishing.jobs(),
            *self.provisioning.jobs(services.settings),
            *billing_jobs(services.billing, services.settings),
        ):
            self._jobs.start(job)

    async def stop(self) -> None:
        """Stop the jobs, let the polls under way end, write what waits, give up the lease, close what is open."""
        services = self.services
        await self._jobs.stop(limit_seconds=STOP_SECONDS)
        await self.provisioning.close(limit_seconds=STOP_SECONDS)
        await services.consoles.close()
        await services.poller.drain()
        services.loop_lag.stop()
        if services.lifecycle.serving:
            await self._write_what_waits()
        await services.sessions.close()
        await services.resets.close()
        self._publishing.close()
        if self._billing is not None:
            await self._billing.gateway.close()
        await self._transport.close()
        self._hasher.close()

    async def _write_what_waits(self) -> None:
        services = self.services
        try:
            async with asyncio.timeout(STOP_SECONDS):
                if services.lifecycle.polls_here:
                    await services.states.flush(fence=services.lifecycle.fence, everything=True)
                    await self._repositories.leases.release(POLLING_LEASE, self._owner)
                await services.audit.flush()
        except (StorageUnavailable, TimeoutError) as error:
            logger.warning("not everything could be written before the end", extra={"why": str(error)})

    # -- jobs --------------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        if self.services.lifecycle.polls_here:
            await self.services.poller.run_once()

    async def _renew_polling_lease(self) -> None:
        """While the database is away the present holder polls on, in memory: the fence guards what it writes later."""
        lifecycle = self.services.lifecycle
        lease = await self._repositories.leases.acquire(POLLING_LEASE, self._owner, ttl_seconds=LEASE_SECONDS)
        if lease is not None:
            if not lifecycle.polls_here:
                logger.info("this process polls the agents", extra={"fence": lease.fence})
            lifecycle.polls_here = True
            lifecycle.fence = lease.fence
        elif lifecycle.polls_here:
            logger.info("another process polls the agents")
            lifecycle.polls_here = False
            self.services.poller.pause()
            self.services.states.begin_following()

    async def _exchange_states(self) -> None:
        services = self.services
        services.poller.observe_lanes()
        if not services.lifecycle.polls_here:
            await services.states.follow()
            return
        await services.states.flush(fence=services.lifecycle.fence)
        while self._forgotten:
            instance_id = next(iter(self._forgotten))
            await self._repositories.states.remove(instance_id)
            del self._forgotten[instance_id]

    # -- instances come and go ---------------------------------------------------------------------------------------

    def _look_at_once(self, instance: Instance) -> None:
        self.services.poller.poll_now(instance.id)

    def _on_instance_change(self, before: Instance | None, after: Instance | None) -> None:
        services = self.services
        if after is None:
            if before is not None:
                services.poller.forget(before.id)
                services.states.forget(before.id)
                if len(self._forgotten) < _FORGOTTEN_LIMIT:
                    self._forgotten[before.id] = None
            return
        try:
            endpoint = services.instances.endpoint(after)
        except StorageError as error:
            logger.error("an agent cannot be polled", extra={"instance": after.id, "why": error.message})  # noqa: TRY400
            state = services.states.get(after.id)
            services.states.put(
                replace(
                    state,
                    healthy=False,
                    reason="secret_unreadable",
                    message="The stored agent token does not open; register it again.",
                    revision=state.revision + 1,
                    changed_at=services.clock.now(),
                )
            )
            return
        services.poller.watch(PollTarget(after.id, endpoint))


async def _dial_console(
    endpoint: AgentEndpoint,
    make: Callable[[], WebSocket],
    *,
    check_dial: Callable[[str], None],
    tls: ssl.SSLContext,
    timeout_seconds: float,
) -> WebSocket:
    return await open_websocket(
        endpoint, PATHS["console_stream"], make, check_dial=check_dial, tls=tls, timeout_seconds=timeout_seconds
    )


def _check_dial(settings: Settings, address: str) -> None:
    try:
        check_agent_address(address, settings.agent_networks)
    except InvalidInput as error:
        raise AgentUnreachable(error.message) from error


def _agent_tls(settings: Settings) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if settings.agent_ca_file is None else str(settings.agent_ca_file))
