"""Throttling: guessing gets slow, owners are not locked out, memory is bounded."""

from __future__ import annotations

import pytest

from controlplane.auth.throttle import ACCOUNT, ADDRESS, MAIL_ACCOUNT, PAIR, LoginThrottle
from controlplane.errors import TooManyRequests
from tests.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def tries(throttle: LoginThrottle, number: int, email: str = "a@b", address: str = "1") -> int:
    """How many of so many tries were let through."""
    through = 0
    for _ in range(number):
        try:
            throttle.login_attempt(email, address)
            through += 1
        except TooManyRequests:
            pass
    return through


def test_guessing_one_account_from_one_address_is_stopped_and_waits_grow(clock: FakeClock) -> None:
    throttle = LoginThrottle(clock)
    assert tries(throttle, 20) == PAIR.free
    waits = []
    for _ in range(4):
        with pytest.raises(TooManyRequests) as refused:
            throttle.login_attempt("a@b", "1")
        waits.append(refused.value.retry_after_seconds)
        clock.advance(refused.value.retry_after_seconds)
        throttle.login_attempt("a@b", "1")
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]


def test_the_owner_elsewhere_is_not_locked_out(clock: FakeClock) -> None:
    throttle = LoginThrottle(clock)
    tries(throttle, 100, address="attacker")
    throttle.login_attempt("a@b", "owner")


def test_an_attack_from_many_addresses_delays_the_owner_for_seconds_only(clock: FakeClock) -> None:
    throttle = LoginThrottle(clock)
    for number in range(500):
        tries(throttle, 1, address=str(number))
    clock.advance(ACCOUNT.longest_wait_seconds)
    throttle.login_attempt("a@b", "owner")


def test_one_address_over_many_accounts_is_stopped(clock: FakeClock) -> None:
    throttle = LoginThrottle(clock)
    assert sum(tries(throttle, 1, email=f"{number}@b") for number in range(200)) == ADDRESS.free


def test_success_starts_the_account_anew(clock: FakeClock) -> None:
    throttle = LoginThrottle(clock)
    for _ in range(5):
        tries(throttle, PAIR.free - 1)
        throttle.login_succeeded("a@b", "1")
    throttle.login_attempt("a@b", "1")


def test_failures_are_forgotten_after_a_while(clock: FakeClock) -> None:
    throttle = LoginThrottle(clock)
    tries(throttle, 20)
    clock.advance(PAIR.forget_seconds + 1)
    assert tries(throttle, 20) == PAIR.free


def test_mail_to_one_account_is_bounded_whoever_asks(clock: FakeClock) -> None:
    throttle = LoginThrottle(clock)
    through = 0
    for number in range(20):
        try:
            throttle.mail_attempt("a@b", str(number))
            through += 1
        except TooManyRequests:
            pass
    assert through == MAIL_ACCOUNT.free


def test_memory_is_bounded_whatever_is_sent(clock: FakeClock) -> None:
    throttle = LoginThrottle(clock, remembered=100)
    for number in range(1000):
        tries(throttle, 1, email="x" * 10_000 + str(number), address=str(number))
    assert len(throttle._counts) == 100
    assert all(len(key) == 16 for key in throttle._counts)
