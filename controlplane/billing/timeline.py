"""What is due to a customer, and when: reminders, suspension, the final warning, deletion. Pure.

Milestones follow from the account alone, so that it does not matter how often, in which order or how late somebody
looks: the latest one that has passed is what counts, and earlier ones are not made up for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.billing.access import OVERDUE
from controlplane.billing.accounts import Access, BillingAccount, NoticeKind, Subscribed

_TRIAL_DAYS_BEFORE = {3: NoticeKind.TRIAL_ENDS_IN_3_DAYS, 1: NoticeKind.TRIAL_ENDS_TOMORROW}
_OVERDUE_DAYS = {
    0: NoticeKind.PAYMENT_FAILED,
    3: NoticeKind.PAYMENT_OVERDUE_3_DAYS,
    7: NoticeKind.PAYMENT_OVERDUE_7_DAYS,
}
_REMINDERS = frozenset({*_TRIAL_DAYS_BEFORE.values(), *_OVERDUE_DAYS.values(), NoticeKind.FINAL_WARNING})
FINAL_WARNING_DAYS = 7
"""So long before the deletion the warning is due, and so long at least it must have been out before one."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`grace_days` after the first unpaid invoice instances are suspended, `termination_days` after it deleted,
    the latter only with `termination_enabled`."""

    grace_days: int
    termination_enabled: bool
    termination_days: int


@dataclass(frozen=True, slots=True)
class Milestone:
    """`kind` SUSPENDED and DELETED stand for the action, of which the customer is told once it is done.

    `reference` is the invoice or the period that it is about. After `until` there is no point in it any more.
    """

    at: datetime
    kind: NoticeKind
    reference: str
    until: datetime | None = None

    @property
    def is_reminder(self) -> bool:
        """Mail alone, without an action."""
        return self.kind in _REMINDERS


def milestones(account: BillingAccount, policy: Policy) -> list[Milestone]:
    """In order of time, past ones too."""
    subscription = account.subscription
    if subscription is None:
        return []
    if subscription.status == "trialing":
        return _of_trial(subscription)
    found: list[Milestone] = []
    begun = account.past_due_since
    reference = lapse_reference(account)
    if subscription.status in OVERDUE and begun is not None:
        found += [Milestone(_after(begun, days), kind, reference) for days, kind in _OVERDUE_DAYS.items()]
        suspended_at = _after(begun, policy.grace_days) if account.access is Access.GRACE else account.access_since
        found.append(Milestone(max(begun, suspended_at or begun), NoticeKind.SUSPENDED, reference))
    elif account.access is Access.NONE:
        begun = begun or subscription.ended_at or account.access_since
        if begun is not None:
            found.append(Milestone(begun, NoticeKind.SUSPENDED, reference))
    if begun is not None and policy.termination_enabled and (found and account.access is not Access.FULL):
        found += [
            Milestone(_after(begun, policy.termination_days - FINAL_WARNING_DAYS), NoticeKind.FINAL_WARNING, reference),
            Milestone(_after(begun, policy.termination_days), NoticeKind.DELETED, reference),
        ]
    return sorted(found, key=lambda milestone: milestone.at)


def lapse_reference(account: BillingAccount) -> str:
    """What an unpaid time is told apart by: its first unpaid invoice, else the period that ended."""
    subscription = account.subscription
    if account.past_due_invoice_id is not None:
        return account.past_due_invoice_id
    ended = None if subscription is None else subscription.ended_at or subscription.period_end
    return "unknown" if ended is None else ended.date().isoformat()


def due(account: BillingAccount, policy: Policy, now: datetime) -> Milestone | None:
    """The latest milestone that has passed."""
    passed = [
        each for each in milestones(account, policy) if each.at <= now and (each.until is None or now < each.until)
    ]
    return passed[-1] if passed else None


def next_at(account: BillingAccount, policy: Policy, now: datetime) -> datetime | None:
    """When to look again: the first milestone to come."""
    return min((each.at for each in milestones(account, policy) if each.at > now), default=None)


def notice_id(account: BillingAccount, kind: NoticeKind, reference: str) -> str:
    subscription = account.subscription
    return f"{account.user_id if subscription is None else subscription.id}:{kind.value}:{reference}"


def facts(account: BillingAccount, policy: Policy, plan_name: str) -> Mapping[str, str]:
    """What a notice's text may say."""
    subscription = account.subscription
    begun = account.past_due_since or (None if subscription is None else subscription.ended_at) or account.access_since
    return {
        "plan": plan_name,
        "trial_end": _day(None if subscription is None else subscription.trial_end),
        "period_end": _day(None if subscription is None else subscription.period_end),
        "amount": "" if subscription is None else money(subscription.amount, subscription.currency),
        "pay_url": "" if subscription is None else subscription.pay_url or "",
        "suspension_day": _day(None if begun is None else _after(begun, policy.grace_days)),
        "deletion_day": (
            _day(_after(begun, policy.termination_days)) if begun is not None and policy.termination_enabled else ""
        ),
    }


_WITHOUT_MINOR_UNIT = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"}
)  # https://docs.stripe.com/currencies#zero-decimal


def money(amount: int, currency: str) -> str:
    """`12.50 EUR`."""
    if currency in _WITHOUT_MINOR_UNIT:
        return f"{amount} {currency.upper()}"
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // 100}.{abs(amount) % 100:02d} {currency.upper()}"


def _of_trial(subscription: Subscribed) -> list[Milestone]:
    """None for one that was cancelled: nothing will be charged."""
    if subscription.trial_end is None or subscription.cancel_at_period_end:
        return []
    reference = subscription.trial_end.date().isoformat()
    return [
        Milestone(_after(subscription.trial_end, -days), kind, reference, until=subscription.trial_end)
        for days, kind in _TRIAL_DAYS_BEFORE.items()
    ]


def _after(moment: datetime, days: int) -> datetime:
    return moment + timedelta(days=days)


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.day} {moment:%B %Y}"
