"""What cards answer and how failed payments are retried: both are told by control calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EVERYBODY = "*"
OUTCOMES = ("succeed", "decline", "action")
"""`action`: declined until the customer authenticates."""


@dataclass(frozen=True, slots=True)
class Dunning:
    """`retry_days` count from the first failure; `end` is what the last failure makes: canceled, unpaid or past_due."""

    retry_days: tuple[int, ...] = (3, 7, 14, 21)
    end: str = "unpaid"


@dataclass(slots=True)
class Cards:
    """What the next payments of one customer, or of everybody, will be answered; a card that was told nothing pays."""

    _next: dict[str, list[str]] = field(default_factory=dict)
    _always: dict[str, str] = field(default_factory=dict)

    def tell(self, customer_id: str, outcome: str, times: int | None) -> None:
        """For the next `times` payments, after what was told before; None: from now on, instead of all that."""
        if times is None:
            self._next.pop(customer_id, None)
            self._always[customer_id] = outcome
        else:
            self._next.setdefault(customer_id, []).extend([outcome] * times)

    @property
    def told(self) -> dict[str, Any]:
        """JSON-compatible, for `from_told`."""
        return {"next": self._next, "always": self._always}

    @classmethod
    def from_told(cls, told: dict[str, Any]) -> Cards:
        return cls(told["next"], told["always"])

    def answer(self, customer_id: str) -> str:
        for who in (customer_id, EVERYBODY):
            if told := self._next.get(who):
                return told.pop(0)
            if who in self._always:
                return self._always[who]
        return "succeed"
