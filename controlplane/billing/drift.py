"""Compares what is stored about a customer with what the provider says. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.billing.access import KNOWN_STATUSES, has_ended
from controlplane.billing.accounts import BillingAccount, Drift, Finding
from controlplane.billing.instance_access import is_suspended_by_billing
from controlplane.billing.plans import PlanCatalog
from controlplane.billing.records import Subscription
from controlplane.models import Instance


def of_unknown_customer(subscription: Subscription) -> Finding | None:
    """Somebody pays, and nobody here gets anything for it."""
    if has_ended(subscription.status):
        return None
    return Finding(
        Drift.UNKNOWN_SUBSCRIPTION,
        subscription.id,
        None,
        f"{subscription.status}, of customer {subscription.customer_id}, who belongs to no account",
    )


def of_subscription(account: BillingAccount, subscription: Subscription, plans: PlanCatalog) -> list[Finding]:
    """What one subscription of a known customer shows, beside the account as it is stored."""
    findings = []
    known = account.subscription

    def add(drift: Drift, detail: str) -> None:
        findings.append(Finding(drift, subscription.id, account.user_id, detail))

    if has_ended(subscription.status):
        if known is not None and known.id == subscription.id and not has_ended(known.status):
            add(Drift.STALE_RECORD, f"stored as {known.status}, is {subscription.status}")
        return findings
    if subscription.status not in KNOWN_STATUSES:
        add(Drift.UNKNOWN_STATUS, f"{subscription.status} means nothing here; access stays {account.access.value}")
    price_id = subscription.items[0].price.id if subscription.items else ""
    if plans.of_price(price_id) is None:
        add(Drift.UNKNOWN_PRICE, f"the price {price_id or '(none)'} belongs to no plan")
    if known is None or has_ended(known.status):
        add(Drift.STALE_RECORD, f"is {subscription.status}, and not stored")
    elif known.id != subscription.id:
        add(Drift.SECOND_SUBSCRIPTION, f"{subscription.status} beside {known.id}, which is {known.status}")
    elif (known.status, known.price_id) != (subscription.status, price_id):
        add(
            Drift.STALE_RECORD,
            f"stored as {known.status} at {known.price_id}, is {subscription.status} at {price_id}",
        )
    return findings


def of_missing(account: BillingAccount) -> Finding | None:
    """The provider does not know the stored subscription. Nothing is done to anybody for that."""
    known = account.subscription
    if known is None or has_ended(known.status):
        return None
    detail = f"stored as {known.status}, and unknown to the provider; access stays {account.access.value}"
    return Finding(Drift.SUBSCRIPTION_MISSING, known.id, account.user_id, detail)


def of_instances(account: BillingAccount, instances: Iterable[Instance]) -> list[Finding]:
    """Instances that are not as the account's access says, once all that was due was asked for."""
    if account.applied_epoch != account.access_epoch or account.access_epoch == 0:
        return []  # under way, or never had access by way of billing
    findings = []
    for instance in instances:
        if account.access.allows and is_suspended_by_billing(instance):
            drift, detail = Drift.PAID_BUT_SUSPENDED, f"{instance.name} is suspended though it is paid for"
        elif not account.access.allows and instance.suspension is None:
            drift, detail = Drift.ACTIVE_BUT_UNPAID, f"{instance.name} is usable though nobody pays for it"
        else:
            continue
        findings.append(Finding(drift, instance.id, account.user_id, detail))
    return findings
