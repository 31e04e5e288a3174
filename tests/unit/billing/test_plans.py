"""The file of plans: what it means, and how each mistake in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.billing.plans import load_plans
from controlplane.billing.records import Interval
from controlplane.errors import ConfigurationError, InvalidInput
from controlplane.models import InstanceKind
from tests.billing_samples import example_plans

GOOD = """
[[plans]]
id = "small"
name = "Small"
trial_days = 14
prices = { month = "price_1" }
former_prices = ["price_0"]
entitlements = { game_servers = 1, dev_containers = 0, memory_mib = 2048, backups = 3, ide = false }
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "plans.toml"
    file.write_text(text)
    return file


def test_the_example_is_a_file_of_plans() -> None:
    plans = example_plans()
    assert [plan.id for plan in plans.plans] == ["starter", "builder", "studio"]
    assert [plan.rank for plan in plans.plans] == [0, 1, 2]
    starter = plans.plans[0]
    assert starter.trial_days == 14
    assert starter.prices == {Interval.MONTH: "price_starter_month", Interval.YEAR: "price_starter_year"}
    assert starter.entitlement.instances == {InstanceKind.GAME: 1, InstanceKind.DEV: 0}
    assert not starter.entitlement.ide


def test_a_price_means_its_plan_also_when_it_is_no_longer_sold(tmp_path: Path) -> None:
    plans = load_plans(write(tmp_path, GOOD))
    for price in ("price_0", "price_1"):
        plan = plans.of_price(price)
        assert plan is not None
        assert plan.id == "small"
    assert plans.of_price("price_2") is None
    assert plans.get(None) is None


def test_those_without_a_plan_may_have_something_too(tmp_path: Path) -> None:
    assert load_plans(write(tmp_path, GOOD)).without_plan is None
    limits = "game_servers = 0, dev_containers = 1, memory_mib = 1, backups = 0, ide = true"
    free = f"\n[without_plan]\nentitlements = {{ {limits} }}\n"
    without = load_plans(write(tmp_path, GOOD + free)).without_plan
    assert without is not None
    assert without.instances == {InstanceKind.GAME: 0, InstanceKind.DEV: 1}
    for wrong, said in (
        ("without_plan = 1\n" + GOOD, "is no table"),
        (GOOD + free.replace("ide", "idle"), "entitlements.idle"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            load_plans(write(tmp_path, wrong))


def test_what_is_not_sold_is_refused_by_name(tmp_path: Path) -> None:
    plans = load_plans(write(tmp_path, GOOD))
    assert plans.wanted("small", Interval.MONTH)[1] == "price_1"
    with pytest.raises(InvalidInput) as refused:
        plans.wanted("huge", Interval.MONTH)
    assert refused.value.fields == {"planId": ["is none of small"]}
    with pytest.raises(InvalidInput) as refused:
        plans.wanted("small", Interval.YEAR)
    assert refused.value.fields == {"interval": ["Small is sold by the month only"]}


@pytest.mark.parametrize(
    ("replaced", "by", "said"),
    [
        (GOOD, "", "holds no plan"),
        (GOOD, "plans = 1", "holds no plan"),
        (GOOD, "[[plans", "is not TOML"),
        (GOOD, GOOD + "\n[other]\n", "unknown key other"),
        (GOOD, GOOD + GOOD, "the plan id small stands there twice"),
        (GOOD, GOOD + GOOD.replace('"small"', '"large"'), "the price price_1 stands there twice"),
        ('id = "small"', "", "plan 1: id must be"),
        ('id = "small"', 'id = "Small!"', "plan 1: id must be"),
        ('name = "Small"', "", "plan 'small': name must be"),
        ('name = "Small"', 'name = "a\\nb"', "plan 'small': name must be"),
        ('name = "Small"', 'name = "Small"\ncolour = "red"', "plan 'small': unknown key colour"),
        ("trial_days = 14", 'trial_days = "14"', "plan 'small': trial_days must be a whole number"),
        ("trial_days = 14", "trial_days = true", "plan 'small': trial_days must be a whole number"),
        ("trial_days = 14", "trial_days = -1", "plan 'small': trial_days must be a whole number"),
        ('{ month = "price_1" }', "{}", "plan 'small': prices must name"),
        ('{ month = "price_1" }', '{ week = "price_1" }', "plan 'small': unknown key prices.week"),
        ('{ month = "price_1" }', "{ month = 5 }", "plan 'small': prices.month must be the id"),
        ('["price_0"]', '"price_0"', "plan 'small': former_prices must be a list"),
        ('["price_0"]', '["price 0"]', "plan 'small': former_prices must be the id"),
        ("memory_mib = 2048, ", "", "plan 'small': entitlements.memory_mib must be a whole number"),
        ("backups = 3", "backups = 1.5", "plan 'small': entitlements.backups must be a whole number"),
        ("ide = false", "ide = 0", "plan 'small': entitlements.ide must be true or false"),
        ("ide = false", "ide = false, disk = 1", "plan 'small': unknown key entitlements.disk"),
        ("entitlements = {", "limits = {", "plan 'small': unknown key limits"),
    ],
)
def test_a_mistake_is_named_with_its_file_plan_and_key(tmp_path: Path, replaced: str, by: str, said: str) -> None:
    file = write(tmp_path, GOOD.replace(replaced, by, 1))
    with pytest.raises(ConfigurationError) as refused:
        load_plans(file)
    assert refused.value.setting == "BILLING_PLANS_FILE"
    assert str(file) in refused.value.message
    assert said in refused.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (2 << 20))
    for file, said in ((tmp_path / "absent.toml", "No such file"), (binary, "not UTF-8"), (large, "larger than")):
        with pytest.raises(ConfigurationError, match=said):
            load_plans(file)
