"""Events of the payment provider: verified, kept, acted on once, in whatever order and however often they come.

An event is only ever a reason to look: its customer's account is settled from what the provider says now. It is stored
before anything is done, so that a process that dies leaves it for another; `resume_once` is the job that looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from controlplane.billing.account_sync import AccountSync
from controlplane.billing.accounts import InboxEntry, InboxState, NoticeKind, OrderKind
from controlplane.billing.notices import Notices
from controlplane.billing.ports import BillingAccountRepository, InboxRepository, OrderRepository, PaymentGateway
from controlplane.billing.records import WebhookEvent
from controlplane.billing.settlement import Settlement
from controlplane.errors import ControlPlaneError, MalformedRequest, Overloaded, PaymentError
from controlplane.ports import Clock, UserRepository

logger = logging.getLogger(__name__)

HANDLED = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.resumed",
        "customer.subscription.trial_will_end",
        "customer.subscription.pending_update_applied",
        "customer.subscription.pending_update_expired",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_action_required",
        "subscription_schedule.released",
        "subscription_schedule.canceled",
        "subscription_schedule.aborted",
        "customer.deleted",
    }
)
"""Those to enable for the endpoint (docs/operations.md). Others are kept and acknowledged."""

_ENDS_CHECKOUT = frozenset({"checkout.session.completed", "checkout.session.expired"})
LEASE_SECONDS = 20.0
PROCESS_SECONDS = 15.0  # the provider waits for about as long
AT_ONCE = 16
WAITING = 200
IDLE_SECONDS = 20.0
BATCH = 100
FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 3600.0
ID_CHARACTERS = 255


class Inbox:
    """`owner` names this process; `on_refused` counts bodies that were not believed, by why."""

    def __init__(
        self,
        *,
        gateway: PaymentGateway,
        inbox: InboxRepository,
        accounts: BillingAccountRepository,
        orders: OrderRepository,
        users: UserRepository,
        sync: AccountSync,
        settlement: Settlement,
        notices: Notices,
        clock: Clock,
        owner: str,
        on_refused: Callable[[str], None],
    ) -> None:
        self._gateway = gateway
        self._inbox = inbox
        self._accounts = accounts
        self._orders = orders
        self._users = users
        self._sync = sync
        self._settlement = settlement
        self._notices = notices
        self._clock = clock
        self._owner = owner
        self._on_refused = on_refused
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def deliver(self, raw: bytes, signature: str | None) -> InboxState:
        """What became of the event. Raises MalformedRequest, with nothing stored, for a body that is not the
        provider's; Overloaded when too many wait already."""
        try:
            event = _checked(self._gateway.verify_webhook(raw, signature))
        except MalformedRequest as error:
            self._on_refused(error.stable_code)
            raise
        return await self._take_in(event, source="webhook")

    async def receive_missed(self, event: WebhookEvent) -> InboxState:
        """As `deliver`, of an event that was read from the provider's list."""
        return await self._take_in(event, source="reconciliation")

    async def _take_in(self, event: WebhookEvent, *, source: str) -> InboxState:
        entry = self._entry(event, source=source)
        if event.type not in HANDLED:
            await self._inbox.receive(replace(entry, state=InboxState.DONE, outcome="kept"))
            return InboxState.DONE
        await self._inbox.receive(entry)
        return await self.process(event.id)

    async def resume_once(self) -> None:
        """Take up what nobody works on: left by a process that died, or failed and due again."""
        left = await self._inbox.left_over(idle_seconds=IDLE_SECONDS, limit=BATCH)
        if left:
            logger.info("taking up events that were left", extra={"events": len(left)})
        for event_id in left:
            await self.process(event_id)

    async def process(self, event_id: str) -> InboxState:
        """DONE or FAILED; PROCESSING when another process has it."""
        if self._waiting >= WAITING:
            raise Overloaded("Too many events are waiting; send it again.")
        self._waiting += 1
        try:
            async with self._places:
                return await self._process(event_id)
        finally:
            self._waiting -= 1

    async def _process(self, event_id: str) -> InboxState:
        entry = await self._inbox.claim(event_id, self._owner, lease_seconds=LEASE_SECONDS)
        if entry is None:
            stored = await self._inbox.get(event_id)
            return InboxState.PROCESSING if stored is None else stored.state
        try:
            async with asyncio.timeout(PROCESS_SECONDS):
                outcome = await self._act(entry)
        except (ControlPlaneError, TimeoutError) as error:
            reason = error.operator_message if isinstance(error, PaymentError) else str(error) or "it took too long"
            logger.warning("an event will be tried again", extra={"event": entry.id, "type": entry.type, "why": reason})
            return await self._fail(entry, reason)
        except Exception as error:  # one that we cannot act on must not keep the job from the others
            logger.exception("an event could not be acted on", extra={"event": entry.id, "type": entry.type})
            return await self._fail(entry, repr(error))
        await self._inbox.finish(entry.id, self._owner, outcome)
        return InboxState.DONE

    async def _fail(self, entry: InboxEntry, reason: str) -> InboxState:
        wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(entry.attempts - 1, 20), LONGEST_RETRY_SECONDS)
        await self._inbox.fail(entry.id, self._owner, reason, retry_seconds=wait)
        return InboxState.FAILED

    async def _act(self, entry: InboxEntry) -> str:
        """What was done, in a word for the record."""
        user_id = await self._user_of(entry)
        if user_id is None:
            logger.info("an event is about nobody here", extra={"event": entry.id, "type": entry.type})
            return "nobody"
        settled = await self._settlement.settle(user_id, entry.id)
        if entry.type in _ENDS_CHECKOUT:
            await self._close_checkout(user_id, entry)
        elif entry.type == "invoice.payment_action_required":
            subscription = settled.account.subscription
            if entry.invoice_id is not None and subscription is not None and subscription.pay_url is not None:
                await self._notices.post(settled.account, NoticeKind.PAYMENT_ACTION_REQUIRED, entry.invoice_id)
        return "settled" if settled.is_conclusive else "inconclusive"

    async def _close_checkout(self, user_id: str, entry: InboxEntry) -> None:
        order = await self._orders.get(user_id, OrderKind.CHECKOUT)
        if order is not None and order.result == entry.checkout_id:
            await self._orders.close(order)

    async def _user_of(self, entry: InboxEntry) -> str | None:
        """By the customer where we know it. Else by what the provider's own object says of the user, when asked."""
        if entry.customer_id is not None:
            account = await self._accounts.find_by_customer(entry.customer_id)
            if account is not None:
                return account.user_id
        user_id, customer_id = await self._claimed(entry)
        if user_id is None or customer_id is None or await self._users.get(user_id) is None:
            return None
        account = await self._accounts.get(user_id)
        if account is not None and account.customer_id is not None:
            return account.user_id if account.customer_id == customer_id else None
        await self._sync.adopt(user_id, customer_id)
        return user_id

    async def _claimed(self, entry: InboxEntry) -> tuple[str | None, str | None]:
        if entry.subscription_id is not None:
            subscription = await self._gateway.retrieve_subscription(entry.subscription_id)
            if subscription is not None:
                return subscription.metadata.get("user_id"), subscription.customer_id
        if entry.checkout_id is not None:
            checkout = await self._gateway.retrieve_checkout(entry.checkout_id)
            if checkout is not None:
                return checkout.user_id, checkout.customer_id
        return None, None

    def _entry(self, event: WebhookEvent, *, source: str) -> InboxEntry:
        return InboxEntry(
            id=event.id,
            type=event.type,
            created_at=event.created_at,
            received_at=self._clock.now(),
            source=source,
            object_id=event.object_id,
            customer_id=event.customer_id,
            subscription_id=event.subscription_id,
            invoice_id=event.invoice_id,
            checkout_id=event.checkout_id,
            user_id=event.user_id,
        )


def _checked(event: WebhookEvent) -> WebhookEvent:
    if not 1 <= len(event.id) <= ID_CHARACTERS:
        raise MalformedRequest("The event's id is not one.", code="not_an_event")
    return event
