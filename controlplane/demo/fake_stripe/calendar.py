"""When periods end: a month after the 31st is the last day of the next month, and the anchor's day comes back."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta

DAY = 86_400
_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "year": 12}


def after(anchor: int, interval: str, count: int) -> int:
    """`count` intervals after `anchor`, both in seconds since the epoch."""
    if interval in _DAYS:
        return anchor + count * _DAYS[interval] * DAY
    start = datetime.fromtimestamp(anchor, UTC)
    months = start.year * 12 + start.month - 1 + count * _MONTHS[interval]
    year, month = divmod(months, 12)
    day = min(start.day, monthrange(year, month + 1)[1])
    moved = start.replace(year=year, month=month + 1, day=day)
    return int(moved.timestamp())


def period_end(anchor: int, start: int, interval: str, count: int) -> int:
    """The first of the anchor's boundaries that lies after `start`."""
    length = timedelta(days=_DAYS.get(interval, 31 * _MONTHS.get(interval, 1)) * count).total_seconds()
    step = max(1, int((start - anchor) / length))  # no boundary of fewer steps can lie after `start`
    while (boundary := after(anchor, interval, step * count)) <= start:
        step += 1
    return boundary
