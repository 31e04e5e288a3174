"""Token primitives: signed access tokens (JWT, RFC 7519 and 8725) and random secrets that are hashed at rest. Pure."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from controlplane.errors import Unauthenticated
from controlplane.ports import Clock

ALGORITHM = "HS256"
ISSUER = "controlplane"
AUDIENCE = "controlplane-api"
ACCESS_TYPE = "access"
MAX_TOKEN_CHARACTERS = 4096
_REQUIRED = ["exp", "iat", "sub", "aud", "iss", "sid", "typ"]


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says. Who the user is and may do now is read from storage, not from here."""

    user_id: str
    session_id: str
    issued_at: datetime
    expires_at: datetime


class AccessTokens:
    """Signs with `secret`; also accepts what `previous_secret` signed, while a change of secrets is under way."""

    def __init__(self, secret: str, previous_secret: str | None, lifetime_seconds: int, clock: Clock) -> None:
        self._secret = secret
        self._accepted = (secret,) if previous_secret is None else (secret, previous_secret)
        self.lifetime_seconds = lifetime_seconds
        self._clock = clock

    def issue(self, user_id: str, session_id: str) -> str:
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "typ": ACCESS_TYPE,
            "sub": user_id,
            "sid": session_id,
            "iat": now,
            "exp": now + self.lifetime_seconds,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def verify(self, token: str) -> AccessClaims:
        """Raises Unauthenticated: `token_expired`, or `token_invalid` for everything else that is wrong."""
        claims = self._decode(token)
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        if expires_at <= self._clock.now():
            raise Unauthenticated("The access token has expired.", code="token_expired")
        return AccessClaims(claims["sub"], claims["sid"], datetime.fromtimestamp(claims["iat"], UTC), expires_at)

    def _decode(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise _invalid()
        for secret in self._accepted:
            try:
                claims = jwt.decode(
                    token,
                    secret,
                    algorithms=[ALGORITHM],
                    audience=AUDIENCE,
                    issuer=ISSUER,
                    options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError as error:
                raise _invalid() from error
            if claims["typ"] != ACCESS_TYPE or not isinstance(claims["sid"], str):
                raise _invalid()
            return _with_times(claims)
        raise _invalid()


def _with_times(claims: dict[str, Any]) -> dict[str, Any]:
    for name in ("exp", "iat"):
        value = claims[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 40:
            raise _invalid()
    return claims


def _invalid() -> Unauthenticated:
    return Unauthenticated("This is not a valid access token.", code="token_invalid")


def random_secret() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """SHA-256 in hex: enough for secrets of 256 random bits, which nobody can guess from it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
