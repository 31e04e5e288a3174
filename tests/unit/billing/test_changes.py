"""Larger or smaller, and whether what there is fits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.billing.changes import Direction, direction, exceeding
from controlplane.billing.records import Interval
from controlplane.models import Instance, InstanceKind
from tests.billing_samples import example_plans

PLANS = example_plans()


@pytest.mark.parametrize(
    ("present", "interval", "target", "target_interval", "expected"),
    [
        ("starter", "month", "builder", Interval.MONTH, Direction.UP),
        ("builder", "year", "studio", Interval.MONTH, Direction.UP),
        ("studio", "month", "starter", Interval.YEAR, Direction.DOWN),
        ("builder", "month", "builder", Interval.MONTH, Direction.SAME),
        ("builder", "month", "builder", Interval.YEAR, Direction.UP),
        ("builder", "year", "builder", Interval.MONTH, Direction.DOWN),
        ("gone", "month", "starter", Interval.MONTH, Direction.UP),
    ],
)
def test_rank_decides_and_then_the_interval(
    present: str, interval: str, target: str, target_interval: Interval, expected: Direction
) -> None:
    wanted = PLANS.get(target)
    assert wanted is not None
    assert direction(PLANS.get(present), interval, wanted, target_interval) is expected


def instance(name: str, kind: InstanceKind) -> Instance:
    return Instance(name, kind, 100, name, "usr_1", "127.0.0.1", 9, b"", datetime(2026, 1, 1, tzinfo=UTC))


def test_what_is_too_much_is_named() -> None:
    games = [instance(name, InstanceKind.GAME) for name in ("mine", "yours")]
    dev = instance("code", InstanceKind.DEV)
    starter, studio = PLANS.plans[0].entitlement, PLANS.plans[2].entitlement
    assert exceeding([*games, dev], starter) == [
        "2 game servers (mine, yours), where the plan allows 1",
        "1 dev containers (code), where the plan allows 0",
    ]
    assert exceeding(games[:1], starter) == []
    assert exceeding([*games, dev], studio) == []
