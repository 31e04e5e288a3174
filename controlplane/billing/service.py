"""What a customer orders: a first plan, a larger or a smaller one, an end, a way back. Each in the account's turn.

An order is stored with its idempotency key before the provider is called: the same order again, by a double click, a
retry or a process that comes after one that died, is the same call. After each the account is settled from what the
provider then says, never from what the call promised.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from controlplane.billing.access import has_ended
from controlplane.billing.account_sync import AccountSync
from controlplane.billing.accounts import BillingAccount, Order, OrderKind, Subscribed
from controlplane.billing.changes import Direction, Excess, consequences, direction, exceeding
from controlplane.billing.instance_access import InstanceAccess
from controlplane.billing.plans import Plan, PlanCatalog
from controlplane.billing.ports import BillingAccountRepository, OrderRepository, PaymentGateway
from controlplane.billing.records import Interval, InvoicePage, InvoicePreview
from controlplane.billing.settlement import Settlement
from controlplane.errors import Conflict, InvalidInput, PaymentRefused
from controlplane.models import Holding, Principal
from controlplane.ports import Clock
from controlplane.turns import Turn, Turns

ORDER_HOURS = 20
"""The provider remembers an idempotency key for 24 hours: an older order is a new one."""

PREVIEW_HOLDS = timedelta(hours=1)
PREVIEW_AHEAD = timedelta(minutes=5)  # the provider's clock may be ahead of ours

_DIRECTION_WORDS = {Direction.SAME: "the present plan", Direction.UP: "an upgrade", Direction.DOWN: "a downgrade"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wanted:
    plan: Plan
    interval: Interval
    price_id: str


class BillingService:
    def __init__(
        self,
        *,
        accounts: BillingAccountRepository,
        orders: OrderRepository,
        gateway: PaymentGateway,
        plans: PlanCatalog,
        sync: AccountSync,
        settlement: Settlement,
        access: InstanceAccess,
        turns: Turns,
        clock: Clock,
        service_url: str,
        random_key: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        self.plans = plans
        self._accounts = accounts
        self._orders = orders
        self._gateway = gateway
        self._sync = sync
        self._settlement = settlement
        self._access = access
        self._turns = turns
        self._clock = clock
        self._page_url = f"{service_url}/#/billing"
        self._random_key = random_key

    # -- reading -----------------------------------------------------------------------------------------------------

    async def account(self, user_id: str) -> BillingAccount:
        """As it was last observed; no call to the provider."""
        return await self._accounts.get(user_id) or BillingAccount(user_id)

    def exceeding(self, account: BillingAccount) -> list[Excess]:
        """What is more than the present plan allows: nothing is done about it, but no more is made. It comes of what an
        administrator registers, or of a change that was not ordered here."""
        plan = self.plans.get(account.plan_id)
        if plan is None or not account.access.allows:
            return []
        return exceeding([each.holding for each in self._access.of_owner(account.user_id)], plan.entitlement)

    def consequences(self, account: BillingAccount, plan: Plan | None) -> list[str]:
        """What else a change to this plan means."""
        present = self.plans.get(account.plan_id)
        return [] if present is None or plan is None else consequences(present.entitlement, plan.entitlement)

    async def invoices(self, user_id: str, *, limit: int, after: str | None) -> InvoicePage:
        account = await self.account(user_id)
        if account.customer_id is None:
            return InvoicePage((), None)
        return await self._gateway.list_invoices(customer_id=account.customer_id, after=after, limit=limit)

    async def preview(self, user_id: str, plan_id: str, interval: Interval) -> tuple[Direction, InvoicePreview | None]:
        """What the change is, and for an upgrade what it would cost now. A downgrade costs nothing now: None."""
        wanted = self._wanted(plan_id, interval)
        subscription = _live(await self.account(user_id))
        change = self._direction(subscription, wanted)
        if change is not Direction.UP:
            return change, None
        return change, await self._gateway.preview_change(
            subscription_id=subscription.id, item_id=subscription.item_id, price_id=wanted.price_id
        )

    async def portal(self, user_id: str) -> str:
        """The URL of a page of the provider's, for cards and invoices."""
        account = await self.account(user_id)
        if account.customer_id is None:
            raise Conflict("There is nothing to look after yet: choose a plan first.", code="no_customer")
        session = await self._gateway.create_portal_session(
            customer_id=account.customer_id, return_url=self._page_url, key=self._random_key()
        )
        return session.url

    # -- the first plan ----------------------------------------------------------------------------------------------

    async def checkout(self, principal: Principal, plan_id: str, interval: Interval) -> str:
        """The URL of the page on which this plan is paid for. Raises Conflict (`already_subscribed`)."""
        wanted = self._wanted(plan_id, interval)
        async with self._turns.of(principal.user_id) as turn:
            customer_id = await self._customer(principal)
            account = (await self._settlement.settle_in(turn, principal.user_id, "checkout")).account
            subscription = account.subscription
            if subscription is not None and not has_ended(subscription.status):
                raise Conflict(
                    "There is a subscription already; change that one.",
                    code="already_subscribed",
                    details={"status": subscription.status, "payUrl": subscription.pay_url},
                )
            url = await self._page_still_open(turn, account, wanted)
            if url is not None:
                return url
            order = await self._open(principal.user_id, OrderKind.CHECKOUT, wanted.price_id)
            trial_days = wanted.plan.trial_days if subscription is None else 0
            page = await self._refusable(
                order,
                self._gateway.create_checkout(
                    customer_id=customer_id,
                    user_id=principal.user_id,
                    price_id=wanted.price_id,
                    trial_days=trial_days,
                    success_url=f"{self._page_url}/done",
                    cancel_url=f"{self._page_url}/left",
                    key=order.key,
                ),
            )
            await self._orders.set_result(order, page.id)
            if page.url is None:
                await self._orders.close(order)
                raise Conflict("This page can no longer be paid on; order again.", code="checkout_over")
            return page.url

    async def _page_still_open(self, turn: Turn, account: BillingAccount, wanted: Wanted) -> str | None:
        """The page of an earlier order for this plan. One for another plan is closed, so that nobody pays twice."""
        order = await self._orders.get(account.user_id, OrderKind.CHECKOUT)
        if order is None or order.result is None:
            return None
        page = await self._gateway.retrieve_checkout(order.result)
        known = account.subscription
        if page is not None and page.status == "complete" and (known is None or page.subscription_id != known.id):
            # Paid, and the subscription was not there a moment ago: it is being made.
            await self._settlement.settle_in(turn, account.user_id, "checkout")
            raise Conflict("This was paid a moment ago; the plan is being set up.", code="already_subscribed")
        if page is not None and page.status == "open":
            if order.target == wanted.price_id:
                return page.url
            await self._gateway.expire_checkout(page.id, key=f"{order.key}:expire")
        await self._orders.close(order)
        return None

    async def _customer(self, principal: Principal) -> str:
        """The provider's id for this user, made at the first order."""
        account = await self.account(principal.user_id)
        if account.customer_id is not None:
            return account.customer_id
        order = await self._open(principal.user_id, OrderKind.CUSTOMER, principal.email)
        customer_id = await self._refusable(
            order, self._gateway.create_customer(user_id=principal.user_id, email=principal.email, key=order.key)
        )
        await self._sync.adopt(principal.user_id, customer_id)
        await self._orders.close(order)
        return customer_id

    # -- changes -----------------------------------------------------------------------------------------------------

    async def upgrade(
        self, user_id: str, plan_id: str, interval: Interval, *, prorated_at: datetime | None
    ) -> BillingAccount:
        """At once, prorated; with the moment of a preview for what that one showed. Where it has to be paid first,
        `awaiting_payment` and `pay_url` say so, and nothing is granted yet. The same upgrade again finds the first."""
        wanted = self._wanted(plan_id, interval)
        now = self._clock.now()
        if prorated_at is not None and not now - PREVIEW_HOLDS <= prorated_at <= now + PREVIEW_AHEAD:
            raise InvalidInput({"proratedAt": ["is not the moment of a preview of the last hour"]})
        async with self._turns.of(user_id) as turn:
            account = await self._fresh(turn, user_id)
            subscription = _live(account)
            if subscription.status == "past_due":
                raise Conflict(
                    "A payment is open: pay it first.", code="payment_due", details={"payUrl": subscription.pay_url}
                )
            awaited = subscription.awaiting_payment
            if subscription.price_id == wanted.price_id or (awaited and awaited.price_id == wanted.price_id):
                return account
            self._must_be(Direction.UP, subscription, wanted)
            moment = "" if prorated_at is None else prorated_at.isoformat()
            order = await self._open(
                user_id, OrderKind.UPGRADE, f"{subscription.id}:{subscription.price_id}:{wanted.price_id}:{moment}"
            )
            if subscription.schedule_id is not None:
                await self._gateway.release_schedule(subscription.schedule_id, key=f"{order.key}:release")
            await self._refusable(
                order,
                self._gateway.change_subscription_now(
                    subscription_id=subscription.id,
                    item_id=subscription.item_id,
                    price_id=wanted.price_id,
                    prorated_at=prorated_at,
                    key=order.key,
                ),
            )
            return await self._done(order, turn, user_id)

    async def downgrade(self, user_id: str, plan_id: str, interval: Interval) -> BillingAccount:
        """At the end of the period. Raises Conflict (`use_exceeds_plan`) that names what is too much.

        No instance can be asked for between the look at what there is and the change that is stored; after that it has
        to fit into the coming plan too (see `PlanEntitlements.coming`).
        """
        wanted = self._wanted(plan_id, interval)
        async with self._turns.of(user_id) as turn:
            subscription = _live(await self._fresh(turn, user_id))
            if subscription.cancel_at_period_end:
                raise Conflict("It ends with this period: resume it first.", code="cancellation_pending")
            self._must_be(Direction.DOWN, subscription, wanted)
            async with self._access.holdings(user_id) as holdings:
                if subscription.plan_id != wanted.plan.id:  # else only the interval changes
                    _require_fit(holdings, wanted.plan)
                order = await self._open(
                    user_id, OrderKind.DOWNGRADE, f"{subscription.id}:{subscription.schedule_id}:{wanted.price_id}"
                )
                await self._refusable(
                    order,
                    self._gateway.schedule_downgrade(
                        subscription_id=subscription.id, price_id=wanted.price_id, key=order.key
                    ),
                )
                return await self._done(order, turn, user_id)

    async def cancel(self, user_id: str) -> BillingAccount:
        """At the end of the period, until when everything stays."""
        async with self._turns.of(user_id) as turn:
            account = await self._fresh(turn, user_id)
            subscription = _live(account)
            if subscription.cancel_at_period_end:
                return account
            order = await self._open(
                user_id, OrderKind.CANCEL, f"{subscription.id}:{subscription.period_end.isoformat()}"
            )
            if subscription.schedule_id is not None:
                await self._gateway.release_schedule(subscription.schedule_id, key=f"{order.key}:release")
            await self._refusable(order, self._gateway.set_cancel_at_period_end(subscription.id, True, key=order.key))
            return await self._done(order, turn, user_id)

    async def resume(self, user_id: str) -> BillingAccount:
        """Take back a cancellation or a downgrade that has not come yet."""
        async with self._turns.of(user_id) as turn:
            subscription = _live(await self._fresh(turn, user_id))
            if subscription.cancel_at_period_end:
                order = await self._open(user_id, OrderKind.RESUME, f"{subscription.id}:cancel")
                await self._refusable(
                    order, self._gateway.set_cancel_at_period_end(subscription.id, False, key=order.key)
                )
            elif subscription.schedule_id is not None:
                order = await self._open(user_id, OrderKind.RESUME, f"{subscription.id}:{subscription.schedule_id}")
                await self._refusable(order, self._gateway.release_schedule(subscription.schedule_id, key=order.key))
            else:
                raise Conflict("Nothing is to end: there is nothing to take back.", code="nothing_to_resume")
            return await self._done(order, turn, user_id)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _wanted(self, plan_id: str, interval: Interval) -> Wanted:
        plan, price_id = self.plans.wanted(plan_id, interval)
        return Wanted(plan, interval, price_id)

    def _direction(self, subscription: Subscribed, wanted: Wanted) -> Direction:
        present = self.plans.of_price(subscription.price_id)
        return direction(present, subscription.interval, wanted.plan, wanted.interval)

    def _must_be(self, allowed: Direction, subscription: Subscribed, wanted: Wanted) -> None:
        found = self._direction(subscription, wanted)
        if found is not allowed:
            raise Conflict(
                f"{wanted.plan.name} by the {wanted.interval.value} is {_DIRECTION_WORDS[found]}.",
                code=f"not_{_DIRECTION_WORDS[allowed].replace(' ', '_')}",
            )

    async def _fresh(self, turn: Turn, user_id: str) -> BillingAccount:
        return (await self._settlement.settle_in(turn, user_id, "order")).account

    async def _open(self, user_id: str, kind: OrderKind, target: str) -> Order:
        now = self._clock.now()
        return await self._orders.open(
            user_id, kind, target, key=self._random_key(), now=now, not_before=now - timedelta(hours=ORDER_HOURS)
        )

    async def _refusable(self, order: Order, call: Awaitable[_T]) -> _T:
        """A definite no ends the order; after any other failure the next try is the same order."""
        try:
            return await call
        except PaymentRefused:
            await self._orders.close(order)
            raise

    async def _done(self, order: Order, turn: Turn, user_id: str) -> BillingAccount:
        account = (await self._settlement.settle_in(turn, user_id, f"order:{order.kind.value}")).account
        await self._orders.close(order)
        return account


def _require_fit(holdings: Sequence[Holding], plan: Plan) -> None:
    excesses = exceeding(holdings, plan.entitlement)
    if excesses:
        problems = [each.problem for each in excesses]
        raise Conflict(
            f"What you have does not fit into {plan.name}: {'; '.join(problems)}. Delete what is too much first.",
            code="use_exceeds_plan",
            details={"problems": problems, "exceeds": [each.as_document() for each in excesses]},
        )


def _live(account: BillingAccount) -> Subscribed:
    subscription = account.subscription
    if subscription is None or has_ended(subscription.status):
        raise Conflict("There is no subscription to change; choose a plan first.", code="no_subscription")
    return subscription
