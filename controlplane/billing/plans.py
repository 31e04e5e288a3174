"""The plans on offer, read once at start from a TOML file. Their order in the file is their rank, the smallest first.

The file names the provider's price for each interval; what a price costs is the provider's to say.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.billing.records import Interval
from controlplane.errors import ConfigurationError, InvalidInput
from controlplane.models import Entitlement, InstanceKind

SETTING = "BILLING_PLANS_FILE"
MAX_PLANS = 50
MAX_FILE_BYTES = 1 << 20
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_PRICE_ID = re.compile(r"[A-Za-z0-9_]{1,100}")
_PLAN_KEYS = {"id", "name", "description", "trial_days", "prices", "former_prices", "entitlements"}
_LIMITS: Mapping[str, tuple[int, int]] = {
    "game_servers": (0, 10_000),
    "dev_containers": (0, 10_000),
    "memory_mib": (0, 1 << 22),
    "backups": (0, 10_000),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`former_prices` are no longer sold, but still mean this plan to those who have them. `rank` 0 is the smallest."""

    id: str
    name: str
    description: str
    rank: int
    trial_days: int
    prices: Mapping[Interval, str]
    former_prices: tuple[str, ...]
    entitlement: Entitlement


class PlanCatalog:
    """`without_plan` is what those have who never bought one; None: nothing."""

    def __init__(self, plans: Sequence[Plan], without_plan: Entitlement | None = None) -> None:
        self.plans = tuple(plans)
        self.without_plan = without_plan
        self._by_id = {plan.id: plan for plan in plans}
        self._by_price = {price: plan for plan in plans for price in (*plan.prices.values(), *plan.former_prices)}

    def get(self, plan_id: str | None) -> Plan | None:
        return None if plan_id is None else self._by_id.get(plan_id)

    def of_price(self, price_id: str) -> Plan | None:
        return self._by_price.get(price_id)

    def wanted(self, plan_id: str, interval: Interval) -> tuple[Plan, str]:
        """The plan and its price. Raises InvalidInput for a plan that is not offered, or not at this interval."""
        plan = self._by_id.get(plan_id)
        if plan is None:
            raise InvalidInput({"planId": [f"is none of {', '.join(self._by_id)}"]})
        price_id = plan.prices.get(interval)
        if price_id is None:
            raise InvalidInput({"interval": [f"{plan.name} is sold by the {' or '.join(plan.prices)} only"]})
        return plan, price_id


def load_plans(file: Path) -> PlanCatalog:
    """Raises ConfigurationError that names the file, the plan and the key at fault."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(SETTING, f"{file} is larger than {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(SETTING, f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(SETTING, f"{file} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(SETTING, f"{file} is not TOML: {error}") from error
    return _Reading(file).catalog(document)


class _Reading:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._where = ""

    def _refuse(self, message: str) -> ConfigurationError:
        return ConfigurationError(SETTING, f"{self._file}: {self._where}{message}")

    def catalog(self, document: Mapping[str, Any]) -> PlanCatalog:
        self._only(document, {"plans", "without_plan"})
        rows = document.get("plans")
        if not isinstance(rows, list) or not rows:
            raise self._refuse("holds no plan; each begins with [[plans]]")
        if len(rows) > MAX_PLANS:
            raise self._refuse(f"holds more than {MAX_PLANS} plans")
        plans = [self._plan(rank, row) for rank, row in enumerate(rows)]
        self._where = ""
        self._unique("the plan id", [plan.id for plan in plans])
        self._unique("the price", [p for plan in plans for p in (*plan.prices.values(), *plan.former_prices)])
        return PlanCatalog(plans, self._without_plan(document))

    def _without_plan(self, document: Mapping[str, Any]) -> Entitlement | None:
        if "without_plan" not in document:
            return None
        self._where = "without_plan: "
        table = document["without_plan"]
        if not isinstance(table, dict):
            raise self._refuse("is no table")
        self._only(table, {"entitlements"})
        return self._entitlement(table.get("entitlements"))

    def _plan(self, rank: int, row: object) -> Plan:
        self._where = f"plan {rank + 1}: "
        if not isinstance(row, dict):
            raise self._refuse("is no table")
        plan_id = row.get("id")
        if not isinstance(plan_id, str) or not _ID.fullmatch(plan_id):
            raise self._refuse("id must be lower-case letters, digits and dashes, at most 40")
        self._where = f"plan {plan_id!r}: "
        self._only(row, _PLAN_KEYS)
        return Plan(
            id=plan_id,
            name=self._text(row, "name", limit=60),
            description=self._text(row, "description", limit=300) if "description" in row else "",
            rank=rank,
            trial_days=self._whole(row.get("trial_days", 0), "trial_days", 0, 730),
            prices=self._prices(row.get("prices")),
            former_prices=self._former(row.get("former_prices", [])),
            entitlement=self._entitlement(row.get("entitlements")),
        )

    def _prices(self, table: object) -> Mapping[Interval, str]:
        if not isinstance(table, dict) or not table:
            raise self._refuse("prices must name a price for month, year or both")
        self._only(table, set(Interval), "prices.")
        return {Interval(name): self._price(price, f"prices.{name}") for name, price in table.items()}

    def _former(self, prices: object) -> tuple[str, ...]:
        if not isinstance(prices, list):
            raise self._refuse("former_prices must be a list of price ids")
        return tuple(self._price(price, "former_prices") for price in prices)

    def _price(self, value: object, key: str) -> str:
        if not isinstance(value, str) or not _PRICE_ID.fullmatch(value):
            raise self._refuse(f"{key} must be the id of a Stripe price, such as price_1Pabc")
        return value

    def _entitlement(self, table: object) -> Entitlement:
        if not isinstance(table, dict):
            raise self._refuse("entitlements is missing")
        self._only(table, {*_LIMITS, "ide"}, "entitlements.")
        numbers = {
            key: self._whole(table.get(key), f"entitlements.{key}", low, high) for key, (low, high) in _LIMITS.items()
        }
        ide = table.get("ide")
        if not isinstance(ide, bool):
            raise self._refuse("entitlements.ide must be true or false")
        return Entitlement(
            instances={
                InstanceKind.GAME: numbers["game_servers"],
                InstanceKind.DEV: numbers["dev_containers"],
            },
            memory_mib=numbers["memory_mib"],
            backups=numbers["backups"],
            ide=ide,
        )

    def _whole(self, value: object, key: str, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._refuse(f"{key} must be a whole number from {low} to {high}")
        return value

    def _text(self, row: Mapping[str, Any], key: str, *, limit: int) -> str:
        value = row.get(key)
        if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > limit:
            raise self._refuse(f"{key} must be 1 to {limit} printable characters")
        return value.strip()

    def _only(self, table: Mapping[str, Any], allowed: set[str], prefix: str = "") -> None:
        for key in table:
            if key not in allowed:
                raise self._refuse(f"unknown key {prefix}{key}; known are {', '.join(sorted(allowed))}")

    def _unique(self, what: str, values: Sequence[str]) -> None:
        for value in values:
            if values.count(value) > 1:
                raise self._refuse(f"{what} {value} stands there twice")
