"""Slows down who guesses, before any bcrypt is spent. Bounded in memory; nobody can lock somebody else out for long.

Three counters a try: the account from this address (strict), the address over all accounts, and the account over all
addresses (loose, and with a short wait, since an attacker may drive it up on purpose).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from controlplane.errors import TooManyRequests
from controlplane.ports import Clock

REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class Limit:
    """`free` tries, then a wait that begins at `wait_seconds` and doubles up to `longest_wait_seconds`."""

    free: int
    wait_seconds: float
    longest_wait_seconds: float
    forget_seconds: float = 900.0


PAIR = Limit(free=5, wait_seconds=2, longest_wait_seconds=300)
ADDRESS = Limit(free=50, wait_seconds=1, longest_wait_seconds=300)
ACCOUNT = Limit(free=50, wait_seconds=1, longest_wait_seconds=15)
MAIL_ADDRESS = Limit(free=10, wait_seconds=10, longest_wait_seconds=600)
MAIL_ACCOUNT = Limit(free=3, wait_seconds=60, longest_wait_seconds=600)


@dataclass(slots=True)
class _Count:
    tries: int
    latest: float
    blocked_until: float


class LoginThrottle:
    """Counts tries and refuses with TooManyRequests. One for sign-ins, resets and registrations of the process."""

    def __init__(self, clock: Clock, *, remembered: int = REMEMBERED) -> None:
        self._clock = clock
        self._remembered = remembered
        self._counts: OrderedDict[bytes, _Count] = OrderedDict()

    def login_attempt(self, email: str, address: str) -> None:
        """Count a sign-in before its password is checked. Raises TooManyRequests while one of the limits holds."""
        self._attempt(
            (("pair", f"{email}\0{address}", PAIR), ("address", address, ADDRESS), ("account", email, ACCOUNT))
        )

    def login_succeeded(self, email: str, address: str) -> None:
        """The right password: this account from this address starts anew; the other counters stay."""
        self._counts.pop(_key("pair", f"{email}\0{address}"), None)

    def mail_attempt(self, email: str, address: str) -> None:
        """Count a request that sends mail to `email`. Raises TooManyRequests, known account or not."""
        self._attempt((("mail-address", address, MAIL_ADDRESS), ("mail-account", email, MAIL_ACCOUNT)))

    def _attempt(self, limits: tuple[tuple[str, str, Limit], ...]) -> None:
        moment = self._clock.monotonic()
        keyed = [(_key(kind, value), limit) for kind, value, limit in limits]
        waits = [self._counts[key].blocked_until - moment for key, _ in keyed if key in self._counts]
        longest = max(waits, default=0.0)
        if longest > 0:
            raise TooManyRequests("Too many tries; wait a while.", retry_after_seconds=max(1, round(longest)))
        for key, limit in keyed:
            self._count(key, limit, moment)

    def _count(self, key: bytes, limit: Limit, moment: float) -> None:
        count = self._counts.pop(key, None)
        if count is None or moment - count.latest > limit.forget_seconds:
            count = _Count(0, moment, moment)
        count.tries += 1
        count.latest = moment
        excess = count.tries - limit.free
        if excess >= 0:
            wait = min(limit.longest_wait_seconds, limit.wait_seconds * 2 ** min(excess, 20))
            count.blocked_until = moment + wait
        self._counts[key] = count
        if len(self._counts) > self._remembered:
            self._counts.popitem(last=False)


def _key(kind: str, value: str) -> bytes:
    """Of fixed size, whatever a caller sends."""
    return hashlib.blake2b(f"{kind}\0{value}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
