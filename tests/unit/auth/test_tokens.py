"""Access tokens: exactly what we signed, of the right type, not expired."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from controlplane.auth.tokens import AccessTokens
from controlplane.errors import Unauthenticated
from tests.account_house import SECRET
from tests.fakes import FakeClock

OTHER = "zZ9yX8wV7uT6sR5qP4oN3mL2kJ1hG0fE"
CLOCK = FakeClock()
NOW = int(CLOCK.now().timestamp())
GOOD: dict[str, Any] = {
    "iss": "controlplane", "aud": "controlplane-api", "typ": "access", "sub": "usr_1", "sid": "ses_1", "iat": NOW,
    "exp": NOW + 60,
}  # fmt: skip


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


def refusal(token: str, tokens: AccessTokens | None = None) -> str:
    with pytest.raises(Unauthenticated) as refused:
        (tokens or AccessTokens(SECRET, None, 900, CLOCK)).verify(token)
    return refused.value.stable_code


def test_what_was_issued_is_read_back() -> None:
    tokens = AccessTokens(SECRET, None, 900, CLOCK)
    claims = tokens.verify(tokens.issue("usr_1", "ses_1"))
    assert (claims.user_id, claims.session_id) == ("usr_1", "ses_1")
    assert (claims.expires_at - claims.issued_at).total_seconds() == 900


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None}, {"iat": None}, {"sub": None}, {"aud": None}, {"iss": None}, {"sid": None}, {"typ": None},
        {"typ": "ide"}, {"typ": "reset"}, {"aud": "elsewhere"}, {"iss": "somebody"}, {"sub": 1}, {"sid": 1},
        {"sid": {"$gt": ""}}, {"exp": 1e400}, {"exp": True}, {"exp": 2**70}, {"iat": "now"},
    ],
)  # fmt: skip
def test_missing_and_wrong_claims_are_refused(changes: dict[str, Any]) -> None:
    assert refusal(signed(**changes)) == "token_invalid"


def test_an_expired_token_says_so() -> None:
    assert refusal(signed(exp=NOW)) == "token_expired"


def test_the_injected_clock_decides() -> None:
    clock = FakeClock()
    tokens = AccessTokens(SECRET, None, 900, clock)
    token = tokens.issue("usr_1", "ses_1")
    clock.advance(899)
    tokens.verify(token)
    clock.advance(1)
    assert refusal(token, tokens) == "token_expired"


def test_another_secret_or_algorithm_is_refused() -> None:
    assert refusal(signed(OTHER)) == "token_invalid"
    assert refusal(jwt.encode(GOOD, SECRET * 2, algorithm="HS512")) == "token_invalid"
    assert refusal(jwt.encode(GOOD, "", algorithm="none")) == "token_invalid"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ä.ö.ü", signed() + "x", signed()[:-4], "e" * 100_000, "\ud800"])
def test_garbage_is_refused(token: str) -> None:
    assert refusal(token) == "token_invalid"


def test_the_previous_secret_is_accepted_while_it_is_configured() -> None:
    both = AccessTokens(SECRET, OTHER, 900, CLOCK)
    assert both.verify(signed(OTHER)).user_id == "usr_1"
    assert both.verify(signed()).user_id == "usr_1"
    assert refusal(signed("q" * 10 + OTHER), both) == "token_invalid"
