"""What billing is made of, where it is set up; None where no key is set."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.billing.account_sync import AccountSync
from controlplane.billing.entitlements import PlanEntitlements
from controlplane.billing.instance_access import InstanceAccess
from controlplane.billing.news import BillingNews
from controlplane.billing.notice_texts import NoticeTexts
from controlplane.billing.notices import Notices
from controlplane.billing.pace import Pace
from controlplane.billing.parts import Billing
from controlplane.billing.plans import PlanCatalog, load_plans
from controlplane.billing.ports import PaymentGateway
from controlplane.billing.price_list import PriceList
from controlplane.billing.reconciliation import TIME_LIMIT_SECONDS as RECONCILIATION_SECONDS
from controlplane.billing.reconciliation import Reconciliation
from controlplane.billing.restoration import Restoration
from controlplane.billing.scheduler import TIME_LIMIT_SECONDS as SCHEDULER_SECONDS
from controlplane.billing.scheduler import Scheduler
from controlplane.billing.service import BillingService
from controlplane.billing.settlement import Settlement, account_turns
from controlplane.billing.stripe_gateway import StripeGateway
from controlplane.billing.timeline import Policy
from controlplane.billing.webhooks import Inbox
from controlplane.clock import SystemClock
from controlplane.events import EventHub
from controlplane.instances import InstanceDirectory
from controlplane.jobs import Job
from controlplane.observability.audit import AuditTrail
from controlplane.observability.metrics import Metrics
from controlplane.ports import Clock, Entitlements, InstanceEffects, LeaseRepository, Mailer, UserRepository
from controlplane.settings import BillingSettings, Settings
from controlplane.storage.billing_accounts import MongoBillingAccountRepository
from controlplane.storage.billing_drift import MongoDriftRepository
from controlplane.storage.billing_inbox import MongoInboxRepository
from controlplane.storage.billing_notices import MongoNoticeRepository
from controlplane.storage.billing_orders import MongoOrderRepository
from controlplane.storage.database import Database


@dataclass(frozen=True, slots=True)
class BillingBase:
    """What is there before provisioning, which asks for `entitlements`."""

    settings: BillingSettings
    plans: PlanCatalog
    accounts: MongoBillingAccountRepository
    entitlements: Entitlements


def make_billing_base(settings: BillingSettings | None, database: Database) -> BillingBase | None:
    """Raises ConfigurationError for a file of plans that cannot be used."""
    if settings is None:
        return None
    plans = load_plans(settings.billing_plans_file)
    accounts = MongoBillingAccountRepository(database)
    return BillingBase(settings, plans, accounts, PlanEntitlements(accounts, plans))


def check_billing(settings: BillingSettings | None) -> None:
    """Raises ConfigurationError for a file of plans, or texts of mails, that cannot be used."""
    if settings is not None:
        load_plans(settings.billing_plans_file)
        NoticeTexts(settings.billing_mail_dir)


def make_gateway(settings: BillingSettings) -> PaymentGateway:
    """Stripe. Signatures are dated by the real time, whatever clock billing goes by."""
    return StripeGateway(
        secret_key=settings.stripe_secret_key,
        webhook_secret=settings.stripe_webhook_secret,
        api_base=settings.stripe_api_base,
        timeout_seconds=settings.stripe_timeout_seconds,
        clock=SystemClock(),
    )


def make_billing(
    base: BillingBase | None,
    database: Database,
    *,
    gateway: PaymentGateway | None = None,
    service_url: str,
    users: UserRepository,
    leases: LeaseRepository,
    directory: InstanceDirectory,
    effects: InstanceEffects,
    audit: AuditTrail,
    events: EventHub,
    mailer: Mailer,
    metrics: Metrics,
    clock: Clock,
    owner: str,
) -> Billing | None:
    """`owner` names this process, `gateway` is Stripe where none is given. Raises ConfigurationError for texts of mails
    that cannot be used."""
    if base is None:
        return None
    gateway = gateway or make_gateway(base.settings)
    settings, plans, accounts = base.settings, base.plans, base.accounts
    policy = Policy(
        grace_days=settings.billing_grace_days,
        termination_enabled=settings.billing_termination_enabled,
        termination_days=settings.billing_termination_days,
    )
    orders, inbox_repository = MongoOrderRepository(database), MongoInboxRepository(database)
    turns = account_turns(leases, owner)
    sync = AccountSync(accounts=accounts, gateway=gateway, plans=plans, policy=policy, clock=clock)
    access = InstanceAccess(directory=directory, users=users, effects=effects, audit=audit)
    notices = Notices(
        notices=MongoNoticeRepository(database),
        users=users,
        mailer=mailer,
        texts=NoticeTexts(settings.billing_mail_dir),
        plans=plans,
        policy=policy,
        clock=clock,
        service_url=service_url,
        owner=owner,
        on_sent=lambda kind: metrics.billing_notices_sent.labels(kind.value).inc(),
    )
    settlement = Settlement(
        sync=sync, accounts=accounts, access=access, notices=notices, turns=turns, policy=policy, clock=clock
    )
    inbox = Inbox(
        gateway=gateway,
        inbox=inbox_repository,
        accounts=accounts,
        orders=orders,
        users=users,
        sync=sync,
        settlement=settlement,
        notices=notices,
        clock=clock,
        owner=owner,
        on_refused=lambda reason: metrics.billing_webhooks_refused.labels(reason).inc(),
    )
    return Billing(
        service=BillingService(
            accounts=accounts,
            orders=orders,
            gateway=gateway,
            plans=plans,
            sync=sync,
            settlement=settlement,
            access=access,
            turns=turns,
            clock=clock,
            service_url=service_url,
        ),
        prices=PriceList(gateway, plans, clock),
        policy=policy,
        pace=Pace(clock),
        inbox=inbox,
        notices=notices,
        scheduler=Scheduler(
            accounts=accounts,
            restoration=Restoration(accounts=accounts, access=access, turns=turns),
            settlement=settlement,
            turns=turns,
            leases=leases,
            clock=clock,
            owner=owner,
            actions_per_run=settings.billing_actions_per_run,
        ),
        reconciliation=Reconciliation(
            gateway=gateway,
            accounts=accounts,
            inbox_repository=inbox_repository,
            reports=MongoDriftRepository(database),
            inbox=inbox,
            settlement=settlement,
            access=access,
            plans=plans,
            turns=turns,
            leases=leases,
            clock=clock,
            owner=owner,
            actions_per_run=settings.billing_actions_per_run,
            interval_seconds=settings.billing_reconcile_interval_seconds,
        ),
        news=BillingNews(accounts, events),
        gateway=gateway,
    )


def billing_jobs(billing: Billing | None, settings: Settings) -> list[Job]:
    if billing is None or settings.billing is None:
        return []
    schedule = settings.billing.billing_schedule_interval_seconds
    reconcile = settings.billing.billing_reconcile_interval_seconds
    return [
        Job("billing-events", billing.inbox.resume_once, 5, 120),
        Job("billing-notices", billing.notices.run_once, 2, 300),
        Job("billing-scheduler", billing.scheduler.run_once, schedule, SCHEDULER_SECONDS),
        Job("billing-reconciliation", billing.reconciliation.run_once, reconcile, RECONCILIATION_SECONDS),
        Job("billing-news", billing.news.run_once, 1, 10),
    ]
