"""From a bearer token to a principal, on every request. Verified tokens are remembered and looked at again and again.

A remembered token is good until it expires, and only while storage has confirmed its session and user during the latest
FRESH_SECONDS. `revalidate` (a job) confirms those in use in three batch reads; what was revoked, suspended or deleted
falls out, in this process and in every other. While the database is away nothing is confirmed, so access ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.auth.tokens import AccessTokens, secret_hash
from controlplane.errors import Forbidden, Unauthenticated
from controlplane.models import ApiKey, Principal, Session, User
from controlplane.ports import ApiKeyRepository, Clock, SessionRepository, UserRepository

API_KEY_PREFIX = "cpk_"
FRESH_SECONDS = 3.0
IN_USE_SECONDS = 30.0
REMEMBERED = 20_000
BATCH = 1_000
TOUCH_SECONDS = 60.0
_MAX_KEY_CHARACTERS = 128

RevocationListener = Callable[[str], None]
"""Called with the id of a session or API key that may no longer be used."""


@dataclass(slots=True)
class _Remembered:
    """A verified token. Times are of the monotonic clock."""

    principal: Principal
    issued_at: datetime
    expires_at: float
    confirmed_at: float
    used_at: float


class Authenticator:
    def __init__(
        self,
        tokens: AccessTokens,
        users: UserRepository,
        sessions: SessionRepository,
        api_keys: ApiKeyRepository,
        clock: Clock,
        *,
        remembered: int = REMEMBERED,
    ) -> None:
        self._tokens = tokens
        self._users = users
        self._sessions = sessions
        self._api_keys = api_keys
        self._clock = clock
        self._limit = remembered
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._touched: dict[str, float] = {}
        self._listeners: list[RevocationListener] = []

    def add_revocation_listener(self, listener: RevocationListener) -> None:
        self._listeners.append(listener)

    def authenticate_cached(self, token: str) -> Principal | None:
        """The principal of a token that was verified before and confirmed lately; else None, and nothing is decided."""
        known = self._remembered.get(token)
        if known is None:
            return None
        moment = self._clock.monotonic()
        if moment >= known.expires_at or moment - known.confirmed_at > FRESH_SECONDS:
            return None
        known.used_at = moment
        return known.principal

    async def authenticate(self, token: str) -> Principal:
        """Raises Unauthenticated (`token_invalid`, `token_expired`, `session_revoked`) or Forbidden (`suspended`)."""
        remembered = await (self._by_api_key(token) if token.startswith(API_KEY_PREFIX) else self._by_session(token))
        self._remembered[token] = remembered
        self._remembered.move_to_end(token)
        if len(self._remembered) > self._limit:
            self._remembered.popitem(last=False)
        return remembered.principal

    async def revalidate(self) -> None:
        """Confirm the tokens in use against storage. Raises StorageUnavailable; then they age out."""
        moment = self._clock.monotonic()
        in_use = []
        for token, known in list(self._remembered.items()):
            if moment >= known.expires_at or moment - known.used_at > IN_USE_SECONDS:
                del self._remembered[token]
            else:
                in_use.append((token, known))
        for start in range(0, len(in_use), BATCH):
            await self._confirm(in_use[start : start + BATCH])

    def seconds_left(self, token: str) -> float:
        """Until a token that was authenticated lately expires; infinite for a key without an end, else 0."""
        known = self._remembered.get(token)
        return 0.0 if known is None else max(0.0, known.expires_at - self._clock.monotonic())

    async def find_gone(self, principals: Collection[Principal]) -> set[str]:
        """The credential ids among these that may no longer be used, expiry of an access token aside.

        For connections that outlive a request. Raises StorageUnavailable.
        """
        each = list({principal.credential_id: principal for principal in principals}.values())
        gone: set[str] = set()
        for start in range(0, len(each), BATCH):
            batch = each[start : start + BATCH]
            is_good = await self._ask(batch)
            gone.update(principal.credential_id for principal in batch if not is_good(principal))
        return gone

    def evict_session(self, session_id: str) -> None:
        self._evict(lambda known: known.principal.session_id == session_id, {session_id})

    def evict_api_key(self, key_id: str) -> None:
        self._evict(lambda known: known.principal.api_key_id == key_id, {key_id})

    def evict_user(self, user_id: str) -> None:
        """The next request of each of the user's tokens asks storage again."""
        self._evict(lambda known: known.principal.user_id == user_id, set())

    # -- within ------------------------------------------------------------------------------------------------------

    def _evict(self, matches: Callable[[_Remembered], bool], revoked: set[str]) -> None:
        for token in [token for token, known in self._remembered.items() if matches(known)]:
            revoked.add(self._remembered.pop(token).principal.credential_id)
        for credential_id in revoked:
            for listener in self._listeners:
                listener(credential_id)

    async def _by_session(self, token: str) -> _Remembered:
        claims = self._tokens.verify(token)
        session = await self._sessions.get(claims.session_id)
        user = await self._users.get(claims.user_id)
        now = self._clock.now()
        if session is None or session.user_id != claims.user_id or not _is_session_good(session, now):
            raise _revoked()
        user = _good_user(user)
        expires_at = min(claims.expires_at, session.expires_at)
        principal = Principal(user.id, user.email, user.role, session.id)
        return self._remember(principal, claims.issued_at, (expires_at - now).total_seconds())

    async def _by_api_key(self, token: str) -> _Remembered:
        key = await self._api_keys.find_by_hash(secret_hash(token)) if len(token) <= _MAX_KEY_CHARACTERS else None
        now = self._clock.now()
        if key is None or not _is_key_good(key, now):
            raise Unauthenticated("This is not a valid API key.", code="token_invalid")
        user = _good_user(await self._users.get(key.user_id))
        await self._touch(key, now)
        principal = Principal(user.id, user.email, user.role, None, key.id, key.scopes)
        left = (key.expires_at - now).total_seconds() if key.expires_at is not None else float("inf")
        return self._remember(principal, key.created_at, left)

    def _remember(self, principal: Principal, issued_at: datetime, seconds_left: float) -> _Remembered:
        moment = self._clock.monotonic()
        return _Remembered(principal, issued_at, moment + seconds_left, moment, moment)

    async def _touch(self, key: ApiKey, now: datetime) -> None:
        if key.last_used_at is None or now - key.last_used_at >= timedelta(seconds=TOUCH_SECONDS):
            await self._api_keys.touch(key.id, now)

    async def _confirm(self, batch: list[tuple[str, _Remembered]]) -> None:
        asked_at = self._clock.monotonic()
        is_good = await self._ask([known.principal for _, known in batch])
        gone: set[str] = set()
        for token, known in batch:
            if self._remembered.get(token) is not known:
                continue  # evicted, or authenticated anew, meanwhile
            if is_good(known.principal):
                known.confirmed_at = asked_at
            else:
                del self._remembered[token]
                gone.add(known.principal.credential_id)
        for credential_id in gone:
            for listener in self._listeners:
                listener(credential_id)

    async def _ask(self, principals: Sequence[Principal]) -> Callable[[Principal], bool]:
        """What storage says of these, in three batch reads."""
        sessions = await self._sessions.get_many(_distinct(p.session_id for p in principals))
        api_keys = await self._api_keys.get_many(_distinct(p.api_key_id for p in principals))
        users = await self._users.get_many(_distinct(p.user_id for p in principals))
        now = self._clock.now()
        return lambda principal: _still_good(principal, sessions, api_keys, users, now)


def _still_good(
    principal: Principal,
    sessions: dict[str, Session],
    api_keys: dict[str, ApiKey],
    users: dict[str, User],
    now: datetime,
) -> bool:
    user = users.get(principal.user_id)
    if user is None or user.suspension is not None or user.role is not principal.role:
        return False
    if principal.session_id is not None:
        session = sessions.get(principal.session_id)
        return session is not None and _is_session_good(session, now)
    key = api_keys.get(principal.api_key_id or "")
    return key is not None and _is_key_good(key, now) and key.scopes == principal.scopes


def _is_session_good(session: Session, now: datetime) -> bool:
    return session.revoked_at is None and session.expires_at > now


def _is_key_good(key: ApiKey, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


def _good_user(user: User | None) -> User:
    if user is None:
        raise _revoked()
    if user.suspension is not None:
        raise Forbidden("This account is suspended.", code="suspended", details={"reason": user.suspension.reason})
    return user


def _revoked() -> Unauthenticated:
    return Unauthenticated("This session has ended; sign in again.", code="session_revoked")


def _distinct(ids: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(each for each in ids if each is not None))
