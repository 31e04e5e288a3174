"""What cards answer and how failed payments are retried: both are told by control calls."""

from __future__ import annotations

from dataclasses import dataclass, field

EVERYBODY = "*"
OUTCOMES = ("succeed", "decline", "action")
"""`action`: declined until the customer authenticates."""


@dataclass(frozen=True, slots=True)
class Dunning:
    """`retry_days` count from the first failure; `end` is what the last failure makes: canceled, unpaid or past_due."""

    retry_days: tuple[int, ...] = (3, 7, 14, 21)
    end: str = "unpaid"


@dataclass(slots=True)
class _Told:
    outcome: str
    times: int | None


@dataclass(slots=True)
class Cards:
    """An outcome for the next payments of one customer, or of everybody; a card that was told nothing pays."""

    _told: dict[str, list[_Told]] = field(default_factory=dict)

    def tell(self, customer_id: str, outcome: str, times: int | None) -> None:
        """For the next `times` payments, after what was told before; None: from now on, instead of it."""
        if times is None:
            self._told[customer_id] = []
        self._told.setdefault(customer_id, []).append(_Told(outcome, times))

    def answer(self, customer_id: str) -> str:
        for who in (customer_id, EVERYBODY):
            queue = self._told.get(who)
            if queue:
                told = queue[0]
                if told.times is not None:
                    told.times -= 1
                    if not told.times:
                        queue.pop(0)
                return told.outcome
        return "succeed"
