"""From a subscription's status to what its customer may use. Pure.

Rules: https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses. A status that we do not know
decides nothing: the present access stays, and it is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from controlplane.billing.accounts import Access
from controlplane.billing.records import Subscription

_FULL = frozenset({"trialing", "active"})
_NONE = frozenset({"incomplete", "incomplete_expired", "unpaid", "paused", "canceled"})
_ENDED = frozenset({"incomplete_expired", "canceled"})
PAST_DUE = "past_due"
KNOWN_STATUSES = _FULL | _NONE | {PAST_DUE}
OVERDUE = frozenset({PAST_DUE, "unpaid"})


def access_of(status: str, past_due_since: datetime | None, *, now: datetime, grace_days: int) -> Access | None:
    """None for a status that we do not know. Past due without a known beginning counts from now."""
    if status in _FULL:
        return Access.FULL
    if status in _NONE:
        return Access.NONE
    if status == PAST_DUE:
        since = past_due_since or now
        return Access.GRACE if now < since + timedelta(days=grace_days) else Access.NONE
    return None


def has_ended(status: str) -> bool:
    """Nothing more comes of it: a new one may be bought."""
    return status in _ENDED


def governing(subscriptions: Sequence[Subscription]) -> Subscription | None:
    """Of a customer's subscriptions the one that counts: what gives most; of equals the latest.

    One of an unknown status comes before those that give nothing, since it may give something.
    """
    return max(subscriptions, key=lambda each: (_weight(each.status), each.created_at, each.id), default=None)


def _weight(status: str) -> int:
    if status in _FULL:
        return 4
    if status == PAST_DUE:
        return 3
    if status not in KNOWN_STATUSES:
        return 2
    return 0 if has_ended(status) else 1
