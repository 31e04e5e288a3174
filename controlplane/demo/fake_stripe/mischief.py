"""What goes wrong on the way, as control calls ask: slow answers, errors, lost answers, connections that end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

KINDS = ("slow", "error", "lost", "reset", "garbage")
"""`lost` does the work and ends the connection without an answer, `reset` ends it before any work; `garbage` answers
200 with no JSON; `error` answers `status` without any work."""


@dataclass(slots=True)
class Mischief:
    """One rule. `times` None: until it is taken away. `path` is a prefix of the request's path."""

    kind: str
    method: str | None = None
    path: str = "/v1/"
    status: int = 500
    seconds: float = 0.0
    times: int | None = 1

    def matches(self, method: str, path: str) -> bool:
        return self.times != 0 and self.method in (None, method) and path.startswith(self.path)


class Mischiefs:
    """`slow` is how many answers are being held back."""

    def __init__(self) -> None:
        self._rules: list[Mischief] = []
        self._cleared = asyncio.Event()
        self.slow = 0

    def add(self, rule: Mischief) -> None:
        self._rules.append(rule)

    def clear(self) -> None:
        self._rules.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    async def hold_back(self, seconds: float) -> None:
        """For so long, or until there is no more mischief."""
        self.slow += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._cleared.wait()
        finally:
            self.slow -= 1

    def take(self, method: str, path: str) -> list[Mischief]:
        """The rules that apply to this request: at most one of each kind, the oldest first."""
        taken: dict[str, Mischief] = {}
        for rule in self._rules:
            if rule.kind not in taken and rule.matches(method, path):
                taken[rule.kind] = rule
                if rule.times is not None:
                    rule.times -= 1
        self._rules = [rule for rule in self._rules if rule.times != 0]
        return list(taken.values())
