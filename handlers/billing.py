"""Billing over HTTP: what a customer has and orders, the provider's webhook, and the administrators' drift report."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from controlplane.billing.accounts import BillingAccount, DatedPlan, InboxState, Subscribed
from controlplane.billing.parts import Billing
from controlplane.billing.plans import Plan
from controlplane.billing.records import Interval, Invoice, InvoicePreview, Price
from controlplane.clock import rfc3339
from controlplane.errors import Conflict, NotFound, Unavailable
from controlplane.models import Entitlement, InstanceKind
from handlers.base import Answer, ApiHandler

WEBHOOK_BODY_LIMIT_BYTES = 512 << 10
EXEMPT = {"exempt": True, "message": "Administrators are not billed: everything is yours to use."}


class BillingHandler(ApiHandler):
    @property
    def billing(self) -> Billing:
        """Raises Conflict (`billing_disabled`)."""
        if self.services.billing is None:
            raise Conflict("Billing is not set up here.", code="billing_disabled")
        return self.services.billing

    @property
    def is_exempt(self) -> bool:
        return self.principal.is_admin

    def admitted(self) -> Billing:
        """For what calls the provider. Raises TooManyRequests."""
        billing = self.billing
        billing.pace.take(self.principal.user_id)
        return billing

    def wanted(self, source: dict[str, Any]) -> tuple[str, Interval]:
        return source["planId"], Interval(source["interval"])

    async def ordered(self, action: str, account: BillingAccount) -> Answer:
        await self.audit(f"billing.{action}", self.principal.user_id, {"plan": account.plan_id})
        return Answer(_account_document(self.billing, account))


class BillingStateHandler(BillingHandler):
    async def on_get(self) -> Answer:
        billing = self.billing
        if self.is_exempt:
            return Answer(EXEMPT)
        return Answer(_account_document(billing, await billing.service.account(self.principal.user_id)))


class BillingPlansHandler(BillingHandler):
    async def on_get(self) -> Answer:
        prices = await self.billing.prices.all()
        return Answer({"items": [_plan_document(plan, prices) for plan in self.billing.service.plans.plans]})


class BillingCheckoutHandler(BillingHandler):
    async def on_post(self) -> Answer:
        if self.is_exempt:
            return Answer(EXEMPT)
        url = await self.admitted().service.checkout(self.principal, *self.wanted(self.body))
        await self.audit("billing.checkout", self.principal.user_id, {"plan": self.body["planId"]})
        return Answer({"url": url}, status=201)


class BillingUpgradeHandler(BillingHandler):
    async def on_post(self) -> Answer:
        if self.is_exempt:
            return Answer(EXEMPT)
        at = self.body.get("proratedAt")
        account = await self.admitted().service.upgrade(
            self.principal.user_id,
            *self.wanted(self.body),
            prorated_at=None if at is None else datetime.fromisoformat(at),
        )
        return await self.ordered("upgrade", account)


class BillingDowngradeHandler(BillingHandler):
    async def on_post(self) -> Answer:
        if self.is_exempt:
            return Answer(EXEMPT)
        account = await self.admitted().service.downgrade(self.principal.user_id, *self.wanted(self.body))
        return await self.ordered("downgrade", account)


class BillingCancelHandler(BillingHandler):
    async def on_post(self) -> Answer:
        if self.is_exempt:
            return Answer(EXEMPT)
        return await self.ordered("cancel", await self.admitted().service.cancel(self.principal.user_id))


class BillingResumeHandler(BillingHandler):
    async def on_post(self) -> Answer:
        if self.is_exempt:
            return Answer(EXEMPT)
        return await self.ordered("resume", await self.admitted().service.resume(self.principal.user_id))


class BillingPortalHandler(BillingHandler):
    async def on_post(self) -> Answer:
        if self.is_exempt:
            return Answer(EXEMPT)
        return Answer({"url": await self.admitted().service.portal(self.principal.user_id)}, status=201)


class BillingPreviewHandler(BillingHandler):
    async def on_get(self) -> Answer:
        if self.is_exempt:
            return Answer(EXEMPT)
        service, user_id = self.admitted().service, self.principal.user_id
        plan_id, interval = self.wanted(self.query)
        change, preview = await service.preview(user_id, plan_id, interval)
        consequences = service.consequences(await service.account(user_id), service.plans.get(plan_id))
        return Answer(
            {
                "change": change.value,
                "consequences": consequences,
                **({} if preview is None else _preview_document(preview)),
            }
        )


class BillingInvoicesHandler(BillingHandler):
    async def on_get(self) -> Answer:
        if self.is_exempt:
            return Answer(EXEMPT)
        page = await self.admitted().service.invoices(
            self.principal.user_id, limit=min(self.query["limit"], 100), after=self.query.get("after")
        )
        return Answer({"items": [_invoice_document(each) for each in page.items], "nextAfter": page.next_after})


class BillingWebhookHandler(BillingHandler):
    """The provider is told 200 once an event is done; anything else makes it send the event again."""

    @property
    def _body_limit_bytes(self) -> int:
        return WEBHOOK_BODY_LIMIT_BYTES

    def read_body(self) -> None:
        """The raw bytes are what is signed: nothing parses them before that is checked."""
        self.query = self.endpoint.query.parse(self.request.query_arguments)
        if self._received_bytes > self._body_limit_bytes:
            raise self._too_large()

    async def on_post(self) -> Answer:
        state = await self.billing.inbox.deliver(self.raw_body, self.request.headers.get("Stripe-Signature"))
        if state is InboxState.DONE:
            return Answer({"received": True})
        if state is InboxState.PROCESSING:
            raise Unavailable("This event is being worked on.", retry_after_seconds=30)
        return Answer(
            {
                "error": "The event is kept and will be tried again.",
                "code": "event_failed",
                "details": None,
                "requestId": self.request_id,
            },
            status=500,
        )


class AdminDriftHandler(BillingHandler):
    async def on_get(self) -> Answer:
        report = await self.billing.reconciliation.latest()
        if report is None:
            raise NotFound("Nothing has been compared with the payment provider yet.")
        document = report.as_document()
        document["startedAt"] = rfc3339(report.started_at)
        document["finishedAt"] = rfc3339(report.finished_at)
        return Answer(document)


# -- documents ---------------------------------------------------------------------------------------------------------


def _account_document(billing: Billing, account: BillingAccount) -> dict[str, Any]:
    subscription = account.subscription
    plan = billing.service.plans.get(account.plan_id)
    due = account.past_due_since
    return {
        "exempt": False,
        "access": account.access.value,
        "plan": None if plan is None else {"id": plan.id, "name": plan.name},
        "entitlements": _entitlement_document(plan.entitlement) if plan is not None and account.access.allows else None,
        "exceeds": [each.as_document() for each in billing.service.exceeding(account)],
        "pastDueSince": _time(due),
        "suspensionAt": _time(None if due is None else due + timedelta(days=billing.policy.grace_days)),
        "observedAt": _time(account.observed_at),
        **(_NO_SUBSCRIPTION if subscription is None else _subscription_document(subscription)),
        "pendingChange": _pending_document(billing, account),
    }


_NO_SUBSCRIPTION: dict[str, Any] = {
    "status": None,
    "interval": None,
    "price": None,
    "periodEnd": None,
    "trialEnd": None,
    "cancelAtPeriodEnd": False,
    "payUrl": None,
}


def _subscription_document(subscription: Subscribed) -> dict[str, Any]:
    return {
        "status": subscription.status,
        "interval": subscription.interval,
        "price": {"amount": subscription.amount, "currency": subscription.currency},
        "periodEnd": _time(subscription.period_end),
        "trialEnd": _time(subscription.trial_end),
        "cancelAtPeriodEnd": subscription.cancel_at_period_end,
        "payUrl": subscription.pay_url,
    }


def _pending_document(billing: Billing, account: BillingAccount) -> dict[str, Any] | None:
    """What will be different, and when; for an upgrade that waits for its payment, when it lapses."""
    subscription = account.subscription
    if subscription is None:
        return None

    def change(kind: str, plan: DatedPlan) -> dict[str, Any]:
        return {"kind": kind, "planId": plan.plan_id, "at": rfc3339(plan.at)}

    if subscription.awaiting_payment is not None:
        return change("upgrade_awaits_payment", subscription.awaiting_payment)
    if subscription.cancel_at_period_end:
        return {"kind": "end", "planId": None, "at": rfc3339(subscription.period_end)}
    if subscription.next is not None:
        coming = billing.service.plans.get(subscription.next.plan_id)
        return {
            **change("downgrade", subscription.next),
            "consequences": billing.service.consequences(account, coming),
        }
    return None


def _plan_document(plan: Plan, prices: dict[str, Price]) -> dict[str, Any]:
    """`prices` is null for an interval whose price is not known now."""
    return {
        "id": plan.id,
        "name": plan.name,
        "description": plan.description,
        "trialDays": plan.trial_days,
        "prices": {interval.value: _price_document(prices.get(price)) for interval, price in plan.prices.items()},
        "entitlements": _entitlement_document(plan.entitlement),
    }


def _price_document(price: Price | None) -> dict[str, Any] | None:
    return None if price is None else {"amount": price.amount, "currency": price.currency}


def _entitlement_document(entitlement: Entitlement) -> dict[str, Any]:
    return {
        "gameServers": entitlement.instances.get(InstanceKind.GAME, 0),
        "devContainers": entitlement.instances.get(InstanceKind.DEV, 0),
        "memoryMib": entitlement.memory_mib,
        "backups": entitlement.backups,
        "ide": entitlement.ide,
    }


def _preview_document(preview: InvoicePreview) -> dict[str, Any]:
    return {
        "amountDue": preview.amount_due,
        "currency": preview.currency,
        "proratedAt": rfc3339(preview.prorated_at),
        "lines": [{"description": line.description, "amount": line.amount} for line in preview.lines],
    }


def _invoice_document(invoice: Invoice) -> dict[str, Any]:
    return {
        "id": invoice.id,
        "number": invoice.number,
        "status": invoice.status,
        "amountDue": invoice.amount_due,
        "amountPaid": invoice.amount_paid,
        "currency": invoice.currency,
        "createdAt": rfc3339(invoice.created_at),
        "url": invoice.hosted_url,
        "pdfUrl": invoice.pdf_url,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
