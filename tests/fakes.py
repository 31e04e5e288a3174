"""Fakes shared by the tests: they satisfy the ports in `controlplane.ports` and hold still until told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controlplane.ports import MailMessage


class FakeClock:
    """A clock that moves only by `advance`."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


class FakeMailer:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[MailMessage] = []

    async def send(self, message: MailMessage) -> None:
        self.sent.append(message)
