"""Larger or smaller, and whether what there is fits."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from controlplane.billing.changes import Direction, Excess, consequences, direction, exceeding
from controlplane.billing.records import Interval
from controlplane.models import Entitlement, Holding, InstanceKind
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


GAMES = [Holding(InstanceKind.GAME, name, None) for name in ("yours", "mine")]
DEV = Holding(InstanceKind.DEV, "code", 2048)
STARTER, BUILDER, STUDIO = (plan.entitlement for plan in PLANS.plans)


def test_what_is_too_much_is_named() -> None:
    games, devs = exceeding([*GAMES, DEV], STARTER)
    assert games == Excess(
        "gameServers", 1, 2, ("mine", "yours"), "2 game servers (mine, yours), where the plan allows 1"
    )
    assert devs.problem == "1 dev containers (code), where the plan allows 0"
    assert devs.as_document() == {"limit": "devContainers", "allowed": 0, "used": 1, "instances": ["code"]}
    assert exceeding(GAMES[:1], STARTER) == []
    assert exceeding([*GAMES, DEV], STUDIO) == []


@pytest.mark.parametrize(("memory_mib", "fits"), [(None, True), (0, True), (2048, True), (2049, False)])
def test_an_instance_may_be_as_large_as_the_plan_says(memory_mib: int | None, fits: bool) -> None:
    assert (exceeding([Holding(InstanceKind.GAME, "big", memory_mib)], STARTER) == []) is fits


def test_all_that_are_too_large_are_named_with_their_size() -> None:
    large = [Holding(InstanceKind.DEV, "b", 16384), Holding(InstanceKind.GAME, "a", 8193), DEV]
    (found,) = exceeding(large, replace(BUILDER, instances=STUDIO.instances))
    assert found == Excess(
        "memoryMib",
        8192,
        16384,
        ("a", "b"),
        "more memory than the 8192 MiB that the plan allows an instance (a has 8193 MiB, b has 16384 MiB)",
    )


@pytest.mark.parametrize("limit", [field.name for field in fields(Entitlement)])
def test_every_limit_of_a_plan_is_looked_at(limit: str) -> None:
    """A limit that is added to plans has to be decided on here too."""
    nothing = Entitlement(dict.fromkeys(InstanceKind, 0), memory_mib=0, backups=0, ide=False)
    smaller = replace(STUDIO, **{limit: getattr(nothing, limit)})
    assert exceeding([*GAMES, DEV], smaller) or consequences(STUDIO, smaller)


def test_what_a_smaller_plan_does_not_take_away_at_once_is_told() -> None:
    assert consequences(BUILDER, STARTER) == [
        (
            "An instance may then have 3 backups, now 10: those that are there stay, and new ones can be made once "
            "there are fewer."
        ),
        "The browser IDE can then no longer be opened.",
    ]
    assert consequences(STUDIO, replace(STUDIO, memory_mib=1)) == []
    assert consequences(STARTER, BUILDER) == []
