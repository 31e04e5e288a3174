"""What handlers and jobs use of billing, already wired. No logic lives here."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.billing.news import BillingNews
from controlplane.billing.notices import Notices
from controlplane.billing.pace import Pace
from controlplane.billing.ports import PaymentGateway
from controlplane.billing.price_list import PriceList
from controlplane.billing.reconciliation import Reconciliation
from controlplane.billing.scheduler import Scheduler
from controlplane.billing.service import BillingService
from controlplane.billing.timeline import Policy
from controlplane.billing.webhooks import Inbox


@dataclass(frozen=True, slots=True)
class Billing:
    service: BillingService
    prices: PriceList
    policy: Policy
    pace: Pace
    inbox: Inbox
    notices: Notices
    scheduler: Scheduler
    reconciliation: Reconciliation
    news: BillingNews
    gateway: PaymentGateway
