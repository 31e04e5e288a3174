"""From what the provider says now to the account that is stored. Pure: the order of events does not come into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from controlplane.billing.access import OVERDUE, access_of, governing, has_ended
from controlplane.billing.accounts import BillingAccount, DatedPlan, Subscribed
from controlplane.billing.plans import PlanCatalog
from controlplane.billing.records import Invoice, Subscription
from controlplane.billing.timeline import Policy, due, next_at

_NOT_BEGUN = frozenset({"incomplete", "incomplete_expired"})
"""Whose first payment never came: that decides nothing about what there was before."""


def observe(
    account: BillingAccount,
    subscriptions: Sequence[Subscription],
    *,
    plans: PlanCatalog,
    policy: Policy,
    now: datetime,
) -> BillingAccount:
    """The account after a read of all of a customer's subscriptions, its revision one higher.

    Where the stored one has not ended and is not among those read, nothing is decided: what it granted stays, and
    `drift` reports it.
    """
    found = governing(subscriptions)
    known = account.subscription
    if found is None or not found.items or (known is not None and _is_missing(known, subscriptions)):
        return _looked_at(replace(account, observed_at=now), policy, now)
    subscribed = _subscribed(found, known, plans)
    since, invoice_id = _past_due(account, found, now)
    access = access_of(found.status, since, now=now, grace_days=policy.grace_days) or account.access
    changed = replace(
        account, subscription=subscribed, access=access, past_due_since=since, past_due_invoice_id=invoice_id
    )
    is_first = account.access_since is None and found.status not in _NOT_BEGUN
    if is_first or access is not account.access:
        flips = is_first or access.allows is not account.access.allows
        changed = replace(changed, access_since=now, access_epoch=account.access_epoch + flips)
    return _looked_at(replace(changed, observed_at=now), policy, now)


def _looked_at(account: BillingAccount, policy: Policy, now: datetime) -> BillingAccount:
    """Attention stays due until what is due was done (see `attended`)."""
    is_due = due(account, policy, now) is not None or account.applied_epoch != account.access_epoch
    return replace(
        account, attention_at=now if is_due else next_at(account, policy, now), revision=account.revision + 1
    )


def attended(account: BillingAccount, policy: Policy, now: datetime) -> BillingAccount:
    """All that was due by `now` is done."""
    return replace(
        account,
        attention_at=next_at(account, policy, now),
        applied_epoch=account.access_epoch,
        revision=account.revision + 1,
    )


def _is_missing(known: Subscribed, subscriptions: Sequence[Subscription]) -> bool:
    return not has_ended(known.status) and all(each.id != known.id for each in subscriptions)


def _past_due(account: BillingAccount, found: Subscription, now: datetime) -> tuple[datetime | None, str | None]:
    """Since when, and by which invoice. The first unpaid one counts, though later ones fall due beside it.

    What is stored is of the same subscription's same unpaid time: any state in between has cleared it.
    """
    if found.status not in OVERDUE:
        # Kept once the provider gave up: the deletion still counts from the first unpaid invoice.
        ended_unpaid = found.status == "canceled" and _is_same(account, found)
        return (account.past_due_since, account.past_due_invoice_id) if ended_unpaid else (None, None)
    invoice = found.latest_invoice
    if account.past_due_since is not None and _is_same(account, found):
        return account.past_due_since, account.past_due_invoice_id
    if invoice is None or invoice.status in ("paid", "void"):
        return now, None
    return min(invoice.created_at, now), invoice.id  # a draft too: once unpaid, later ones are not finalized


def _is_same(account: BillingAccount, found: Subscription) -> bool:
    return account.subscription is not None and account.subscription.id == found.id


def is_unpaid(invoice: Invoice) -> bool:
    return invoice.status in ("open", "uncollectible")


def _subscribed(found: Subscription, known: Subscribed | None, plans: PlanCatalog) -> Subscribed:
    item = found.items[0]
    plan = plans.of_price(item.price.id)
    plan_id = None if plan is None else plan.id
    if plan_id is None and known is not None and known.id == found.id:
        plan_id = known.plan_id  # a price that left the file: what was bought stays granted, and it is reported
    invoice = found.latest_invoice
    return Subscribed(
        id=found.id,
        status=found.status,
        plan_id=plan_id,
        price_id=item.price.id,
        item_id=item.id,
        interval=item.price.interval,
        amount=item.price.amount,
        currency=item.price.currency,
        period_end=item.period_end,
        cancel_at_period_end=found.cancel_at_period_end,
        ended_at=found.ended_at,
        trial_end=found.trial_end,
        schedule_id=None if found.schedule is None else found.schedule.id,
        next=_scheduled(found, plans),
        awaiting_payment=_awaiting(found, plans),
        pay_url=invoice.hosted_url if invoice is not None and is_unpaid(invoice) else None,
    )


def _scheduled(found: Subscription, plans: PlanCatalog) -> DatedPlan | None:
    """The first phase to come of a schedule that still runs, where it changes the price."""
    schedule = found.schedule
    if schedule is None or schedule.status not in ("active", "not_started"):
        return None
    current = found.items[0]
    for phase in schedule.phases:
        if phase.starts_at >= current.period_end and phase.price_ids and phase.price_ids[0] != current.price.id:
            return _dated(phase.price_ids[0], phase.starts_at, plans)
    return None


def _awaiting(found: Subscription, plans: PlanCatalog) -> DatedPlan | None:
    pending = found.pending_update
    if pending is None or not pending.price_ids:
        return None
    return _dated(pending.price_ids[0], pending.expires_at, plans)


def _dated(price_id: str, at: datetime, plans: PlanCatalog) -> DatedPlan:
    plan = plans.of_price(price_id)
    return DatedPlan(None if plan is None else plan.id, price_id, at)
