"""When billing periods end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.demo.fake_stripe.calendar import after, period_end


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("anchor", "interval", "count", "expected"),
    [
        ("2026-01-31T10:00", "month", 1, "2026-02-28T10:00"),
        ("2026-01-31T10:00", "month", 2, "2026-03-31T10:00"),
        ("2028-02-29T10:00", "year", 1, "2029-02-28T10:00"),
        ("2028-02-29T10:00", "year", 4, "2032-02-29T10:00"),
        ("2026-12-01T00:00", "month", 1, "2027-01-01T00:00"),
        ("2026-01-01T00:00", "week", 2, "2026-01-15T00:00"),
        ("2026-01-01T00:00", "day", 3, "2026-01-04T00:00"),
    ],
)
def test_intervals_keep_to_the_anchors_day(anchor: str, interval: str, count: int, expected: str) -> None:
    assert after(at(anchor), interval, count) == at(expected)


@pytest.mark.parametrize("interval", ["day", "week", "month", "year"])
@pytest.mark.parametrize("count", [1, 3])
def test_periods_follow_one_another_without_a_gap(interval: str, count: int) -> None:
    anchor = start = at("2024-01-31T12:00")
    for step in range(1, 60):
        end = period_end(anchor, start, interval, count)
        assert end == after(anchor, interval, step * count)
        start = end
