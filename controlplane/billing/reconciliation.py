"""Compares everything with the provider, both ways, in pages, and sets right what can be: the drift report.

Reads first, acts after: each repair is a settlement of its own, which reads again right before it acts. A comparison
that could not be finished says so; what it did not see is not taken for missing.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controlplane.billing import drift
from controlplane.billing.accounts import BillingAccount, Drift, DriftReport, Finding, InboxState
from controlplane.billing.instance_access import InstanceAccess
from controlplane.billing.plans import PlanCatalog
from controlplane.billing.ports import BillingAccountRepository, DriftRepository, InboxRepository, PaymentGateway
from controlplane.billing.records import Subscription, WebhookEvent
from controlplane.billing.settlement import Settlement
from controlplane.billing.webhooks import HANDLED, Inbox
from controlplane.errors import ControlPlaneError, PaymentError
from controlplane.models import Lease
from controlplane.ports import Clock, LeaseRepository
from controlplane.turns import Turns

logger = logging.getLogger(__name__)

LEASE = "billing-reconciliation"
LEASE_SECONDS = 900.0
TIME_LIMIT_SECONDS = 800.0
PAGE = 100
PAGES = 5_000
FINDINGS = 1000
EVENTS_OVERLAP = timedelta(hours=1)
EVENTS_FIRST_LOOK = timedelta(days=3)
DELIVERY_MAY_TAKE = timedelta(minutes=10)
"""An event that is younger is not missed yet."""


@dataclass(slots=True)
class _Comparison:
    """What one comparison has seen so far."""

    id: str
    started_at: datetime
    subscriptions: int = 0
    accounts: int = 0
    events: int = 0
    live: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    omitted: int = 0
    missed: list[WebhookEvent] = field(default_factory=list)
    events_until: datetime | None = None
    problem: str | None = None

    def add(self, *findings: Finding | None) -> None:
        for finding in findings:
            if finding is None:
                continue
            if len(self.findings) < FINDINGS:
                self.findings.append(finding)
            else:
                self.omitted += 1


class Reconciliation:
    """`actions_per_run` bounds the repairs of one run; `interval_seconds` is how often one is wanted over all."""

    def __init__(
        self,
        *,
        gateway: PaymentGateway,
        accounts: BillingAccountRepository,
        inbox_repository: InboxRepository,
        reports: DriftRepository,
        inbox: Inbox,
        settlement: Settlement,
        access: InstanceAccess,
        plans: PlanCatalog,
        turns: Turns,
        leases: LeaseRepository,
        clock: Clock,
        owner: str,
        actions_per_run: int,
        interval_seconds: float,
    ) -> None:
        self._gateway = gateway
        self._accounts = accounts
        self._inbox_repository = inbox_repository
        self._reports = reports
        self._inbox = inbox
        self._settlement = settlement
        self._access = access
        self._plans = plans
        self._turns = turns
        self._leases = leases
        self._clock = clock
        self._owner = owner
        self._actions_per_run = actions_per_run
        self._interval = timedelta(seconds=interval_seconds)

    async def latest(self) -> DriftReport | None:
        return await self._reports.latest()

    async def run_once(self) -> None:
        """Unless another process has just done it."""
        latest = await self._reports.latest()
        if latest is None or latest.started_at <= self._clock.now() - self._interval / 2:
            await self.reconcile()

    async def reconcile(self) -> DriftReport | None:
        """Compare, set right and store the report; None when another process is at it."""
        lease = await self._leases.acquire(LEASE, self._owner, ttl_seconds=LEASE_SECONDS)
        if lease is None:
            return None
        try:
            seen = await self._compare()
            report = self._report(seen, await self._repair(seen, lease), dry_run=False)
            await self._reports.add(report)
            if seen.problem is None and seen.events_until is not None:
                await self._reports.set_events_read_until(seen.events_until)
        finally:
            await self._leases.release(LEASE, self._owner)
        if report.findings or report.problem:
            logger.warning(
                "our records and the payment provider's differ",
                extra={"report": report.id, "findings": len(report.findings), "problem": report.problem},
            )
        return report

    async def dry_run(self) -> DriftReport:
        """The same comparison; nothing is changed, nor is the report stored."""
        seen = await self._compare()
        return self._report(seen, seen.findings, dry_run=True)

    def _report(self, seen: _Comparison, findings: list[Finding], *, dry_run: bool) -> DriftReport:
        return DriftReport(
            id=seen.id,
            started_at=seen.started_at,
            finished_at=self._clock.now(),
            dry_run=dry_run,
            subscriptions_read=seen.subscriptions,
            accounts_read=seen.accounts,
            events_read=seen.events,
            findings=findings,
            findings_omitted=seen.omitted,
            problem=seen.problem,
        )

    # -- comparing ---------------------------------------------------------------------------------------------------

    async def _compare(self) -> _Comparison:
        seen = _Comparison(f"rec_{secrets.token_hex(8)}", self._clock.now())
        try:
            await self._compare_subscriptions(seen)
            await self._compare_accounts(seen)
            await self._compare_events(seen)
        except PaymentError as error:
            seen.problem = f"the provider could not be read to the end: {error.operator_message}"
        return seen

    async def _compare_subscriptions(self, seen: _Comparison) -> None:
        async for subscription in self._subscriptions(seen):
            seen.subscriptions += 1
            seen.live.add(subscription.id)
            account = await self._accounts.find_by_customer(subscription.customer_id)
            if account is None:
                seen.add(drift.of_unknown_customer(subscription))
            else:
                seen.add(*drift.of_subscription(account, subscription, self._plans))

    async def _subscriptions(self, seen: _Comparison) -> AsyncIterator[Subscription]:
        after: str | None = None
        for _ in range(PAGES):
            page = await self._gateway.list_subscriptions(after=after, limit=PAGE)
            for subscription in page.items:
                yield subscription
            after = page.next_after
            if after is None:
                return
        seen.problem = f"after {seen.subscriptions} subscriptions the rest was not compared"

    async def _compare_accounts(self, seen: _Comparison) -> None:
        after: str | None = None
        while page := await self._accounts.page(limit=PAGE, after=after):
            after = page[-1].user_id
            for account in page:
                seen.accounts += 1
                await self._compare_account(seen, account)

    async def _compare_account(self, seen: _Comparison, account: BillingAccount) -> None:
        known = account.subscription
        if known is not None and known.id not in seen.live and await self._is_gone(known.id):
            seen.add(drift.of_missing(account))
        if not await self._access.is_exempt(account.user_id):
            seen.add(*drift.of_instances(account, self._access.of_owner(account.user_id)))

    async def _is_gone(self, subscription_id: str) -> bool:
        """Made since the list was read, or beyond its bound, it is found by itself."""
        return await self._gateway.retrieve_subscription(subscription_id) is None

    async def _compare_events(self, seen: _Comparison) -> None:
        read_until = await self._reports.events_read_until()
        since = seen.started_at - EVENTS_FIRST_LOOK if read_until is None else read_until - EVENTS_OVERLAP
        until = seen.started_at - DELIVERY_MAY_TAKE
        after: str | None = None
        for _ in range(PAGES):
            page = await self._gateway.list_events_since(since, after=after, limit=PAGE)
            seen.events += len(page.items)
            await self._compare_event_page(seen, [event for event in page.items if event.created_at <= until])
            after = page.next_after
            if after is None:
                seen.events_until = until
                return
        seen.problem = f"after {seen.events} events the rest was not compared"

    async def _compare_event_page(self, seen: _Comparison, events: list[WebhookEvent]) -> None:
        """Only what concerns a customer of ours: the provider's account may serve others too."""
        wanted = [event for event in events if event.type in HANDLED and event.customer_id is not None]
        known = await self._inbox_repository.known([event.id for event in wanted])
        for event in wanted:
            if event.id in known or event.customer_id is None:
                continue
            account = await self._accounts.find_by_customer(event.customer_id)
            if account is not None:
                seen.missed.append(event)
                detail = f"{event.type} of {event.created_at.isoformat()} never arrived"
                seen.add(Finding(Drift.MISSED_EVENT, event.id, account.user_id, detail))

    # -- setting right -----------------------------------------------------------------------------------------------

    async def _repair(self, seen: _Comparison, lease: Lease) -> list[Finding]:
        missed = {event.id: event for event in seen.missed}
        repaired: list[Finding] = []
        actions = 0
        for finding in seen.findings:
            is_repairable = finding.drift in _REPAIRABLE and actions < self._actions_per_run
            if not is_repairable or not await self._leases.is_current(LEASE, self._owner, lease.fence):
                repaired.append(finding)
                continue
            try:
                done = await self._repair_one(finding, missed, seen.id)
            except ControlPlaneError as error:
                logger.warning("a difference stays", extra={"subject": finding.subject, "why": error.message})
                done = 0
            actions += done
            repaired.append(replace(finding, repaired=done > 0))
        return repaired

    async def _repair_one(self, finding: Finding, missed: dict[str, WebhookEvent], cause: str) -> int:
        """How many actions it took; 0 when it could not be set right."""
        if finding.drift is Drift.MISSED_EVENT:
            return int(await self._inbox.receive_missed(missed[finding.subject]) is InboxState.DONE)
        assert finding.user_id is not None
        async with self._turns.of(finding.user_id) as turn:
            settled = await self._settlement.settle_in(turn, finding.user_id, cause)
            if not settled.is_conclusive:
                return 0
            if finding.drift is Drift.STALE_RECORD:
                return max(1, settled.acted_on)
            if settled.account.access.allows:
                return settled.acted_on + await self._access.lift_strays(settled.account, turn, cause)
            return settled.acted_on + await self._access.suspend_strays(settled.account, turn, cause)


_REPAIRABLE = frozenset({Drift.MISSED_EVENT, Drift.STALE_RECORD, Drift.PAID_BUT_SUSPENDED, Drift.ACTIVE_BUT_UNPAID})
"""The rest is for a person to decide."""
