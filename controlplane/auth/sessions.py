"""Accounts and sessions: registration, sign-in, refresh with rotation, sign-out, password change.

A session is a family of refresh tokens (RFC 9700 section 4.14): each is used once and replaced; one that comes back
after its use ends the family, since two parties hold it. For GRACE_SECONDS the immediate predecessor is refused without
harm: a client that sent two refreshes at once, or lost an answer, is not a thief.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.auth.authenticator import Authenticator
from controlplane.auth.background import AfterAnswer
from controlplane.auth.passwords import Hasher, check_password
from controlplane.auth.throttle import LoginThrottle
from controlplane.auth.tokens import AccessTokens, random_secret, secret_hash
from controlplane.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from controlplane.models import Principal, Role, Session, User
from controlplane.ports import Clock, Mailer, MailMessage, SessionRepository, UserRepository

GRACE_SECONDS = 10.0
MAX_USER_AGENT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Login:
    """The tokens of a sign-in or refresh. They are shown once: only the refresh token's hash is stored."""

    access_token: str
    refresh_token: str
    expires_in_seconds: int
    user: User


def normalize_email(email: str) -> str:
    """How an address is stored and compared: NFKC, lower case, without blanks around it."""
    return unicodedata.normalize("NFKC", email).strip().casefold()


class SessionService:
    """`random_id` gives the random part of ids."""

    def __init__(
        self,
        *,
        users: UserRepository,
        sessions: SessionRepository,
        hasher: Hasher,
        tokens: AccessTokens,
        throttle: LoginThrottle,
        authenticator: Authenticator,
        mailer: Mailer,
        clock: Clock,
        session_max_days: int,
        random_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._hasher = hasher
        self._tokens = tokens
        self._throttle = throttle
        self._authenticator = authenticator
        self._mailer = mailer
        self._clock = clock
        self._lifetime = timedelta(days=session_max_days)
        self._random_id = random_id
        self.after_answer = AfterAnswer()

    # -- accounts ----------------------------------------------------------------------------------------------------

    async def create_user(self, email: str, password: str, role: Role) -> User:
        """Raises InvalidInput for a bad address or password, Conflict (`email_taken`) when the address is in use."""
        email = normalize_email(email)
        if not 3 <= len(email) <= 254 or email.count("@") != 1 or email.startswith("@") or email.endswith("@"):
            raise InvalidInput({"email": ["is not an email address"]})
        check_password(password, email)
        user = self._new_user(email, await self._hasher.hash(password), role)
        await self._users.add(user)
        return user

    async def register(self, email: str, password: str, *, address: str) -> None:
        """Makes a customer's account. A taken address is told to its owner by mail alone, never to the caller.

        Raises InvalidInput for the password, TooManyRequests, Overloaded.
        """
        email = normalize_email(email)
        check_password(password, email)
        self._throttle.mail_attempt(email, address)
        user = self._new_user(email, await self._hasher.hash(password), Role.CUSTOMER)
        try:
            await self._users.add(user)
        except Conflict:
            message = _already_registered(email)
        else:
            message = _welcome(email)
        self.after_answer.start("registration mail", self._mailer.send(message))

    def _new_user(self, email: str, password_hash: str, role: Role) -> User:
        now = self._clock.now()
        return User(f"usr_{self._random_id()}", email, password_hash, role, now, now)

    # -- signing in --------------------------------------------------------------------------------------------------

    async def login(self, email: str, password: str, *, address: str, user_agent: str) -> Login:
        """Raises Unauthenticated (`credentials_wrong`) alike for a wrong password and an unknown account, Forbidden
        (`suspended`) once the password was right, TooManyRequests, Overloaded."""
        email = normalize_email(email)
        self._throttle.login_attempt(email, address)
        user = await self._users.find_by_email(email)
        is_right = await self._hasher.verify(password, None if user is None else user.password_hash)
        if user is None or not is_right:
            raise Unauthenticated("The email or the password is wrong.", code="credentials_wrong")
        self._throttle.login_succeeded(email, address)
        _refuse_suspended(user)
        return await self._begin(user, address, user_agent)

    async def _begin(self, user: User, address: str, user_agent: str) -> Login:
        now = self._clock.now()
        refresh_token = random_secret()
        session = Session(
            id=f"ses_{self._random_id()}",
            user_id=user.id,
            refresh_hash=secret_hash(refresh_token),
            created_at=now,
            last_used_at=now,
            expires_at=now + self._lifetime,
            user_agent=_printable(user_agent),
            address=address,
        )
        await self._sessions.remember_refresh_hash(session.refresh_hash, session.id, session.expires_at)
        await self._sessions.add(session)
        current = await self._users.get(user.id)
        if current is None or current.password_hash != user.password_hash:
            # Reset or changed while the old password was being checked: what ended every session missed this one.
            await self._sessions.revoke(session.id, at=now, reason="password_changed")
            raise Unauthenticated("The email or the password is wrong.", code="credentials_wrong")
        return self._login(user, session.id, refresh_token)

    def _login(self, user: User, session_id: str, refresh_token: str) -> Login:
        return Login(self._tokens.issue(user.id, session_id), refresh_token, self._tokens.lifetime_seconds, user)

    async def refresh(self, refresh_token: str) -> Login:
        """New tokens for a refresh token. Raises Unauthenticated: `refresh_invalid`, `session_revoked`,
        `refresh_superseded` within the grace of its successor; and Forbidden (`suspended`)."""
        given = secret_hash(refresh_token)
        session_id = await self._sessions.find_session_id_by_refresh_hash(given)
        session = None if session_id is None else await self._sessions.get(session_id)
        now = self._clock.now()
        if session is None or session.expires_at <= now:
            raise Unauthenticated("This refresh token is not valid; sign in again.", code="refresh_invalid")
        if session.revoked_at is not None:
            raise _session_ended()
        if given != session.refresh_hash:
            await self._reused(session, given, now)
        user = await self._users.get(session.user_id)
        if user is None:
            raise _session_ended()
        _refuse_suspended(user)
        successor = random_secret()
        await self._sessions.remember_refresh_hash(secret_hash(successor), session.id, session.expires_at)
        rotated = await self._sessions.rotate(session.id, expected_hash=given, new_hash=secret_hash(successor), at=now)
        if not rotated:  # another refresh with the same token, or a revocation, was faster
            current = await self._sessions.get(session.id)
            if current is None or current.revoked_at is not None:
                raise _session_ended()
            raise _superseded()
        return self._login(user, session.id, successor)

    async def _reused(self, session: Session, given: str, now: datetime) -> None:
        """Raises Unauthenticated, and ends the family unless this is the predecessor within its grace."""
        if (
            given == session.previous_refresh_hash
            and session.rotated_at is not None
            and now - session.rotated_at <= timedelta(seconds=GRACE_SECONDS)
        ):
            raise _superseded()
        await self._sessions.revoke(session.id, at=now, reason="refresh_token_reused")
        self._authenticator.evict_session(session.id)
        raise _session_ended()

    # -- sessions ----------------------------------------------------------------------------------------------------

    async def list_sessions(self, user_id: str) -> list[Session]:
        """Active ones, newest first."""
        return await self._sessions.list_active(user_id, self._clock.now())

    async def revoke_session(self, user_id: str, session_id: str) -> None:
        """Raises NotFound alike for what is missing, ended already or not the user's."""
        session = await self._sessions.get(session_id)
        if session is None or session.user_id != user_id:
            raise NotFound
        if not await self._sessions.revoke(session_id, at=self._clock.now(), reason="signed_out"):
            raise NotFound
        self._authenticator.evict_session(session_id)

    async def logout_all(self, user_id: str) -> None:
        for session_id in await self._sessions.revoke_all(user_id, at=self._clock.now(), reason="signed_out_all"):
            self._authenticator.evict_session(session_id)
        self._authenticator.evict_user(user_id)

    async def change_password(self, principal: Principal, current: str, new: str, *, address: str) -> None:
        """Every other session of the user ends. Raises Forbidden (`password_wrong`), InvalidInput for `newPassword`,
        TooManyRequests."""
        self._throttle.login_attempt(principal.email, address)
        user = await self._users.get(principal.user_id)
        if user is None or not await self._hasher.verify(current, user.password_hash):
            raise Forbidden("The current password is wrong.", code="password_wrong")
        self._throttle.login_succeeded(principal.email, address)
        check_password(new, user.email, "newPassword")
        new_hash = await self._hasher.hash(new)
        now = self._clock.now()
        if not await self._users.set_password(user.id, expected_hash=user.password_hash, new_hash=new_hash, at=now):
            raise Conflict("The password was changed by somebody else at the same time.", code="password_changed")
        ended = await self._sessions.revoke_all(
            user.id, at=now, reason="password_changed", except_session_id=principal.session_id
        )
        for session_id in ended:
            self._authenticator.evict_session(session_id)

    async def close(self) -> None:
        await self.after_answer.close()


def _refuse_suspended(user: User) -> None:
    if user.suspension is not None:
        raise Forbidden("This account is suspended.", code="suspended", details={"reason": user.suspension.reason})


def _session_ended() -> Unauthenticated:
    return Unauthenticated("This session has ended; sign in again.", code="session_revoked")


def _superseded() -> Unauthenticated:
    return Unauthenticated("This refresh token was just exchanged; use its successor.", code="refresh_superseded")


def _printable(text: str) -> str:
    cut = text[:MAX_USER_AGENT_CHARACTERS]
    return "".join(character if character.isprintable() else " " for character in cut)


def _welcome(email: str) -> MailMessage:
    return MailMessage(
        email,
        "Your account is ready",
        "An account was made with this address. You can sign in with the password that was chosen.\n\n"
        "If that was not you, ask for a password reset and the account is yours.\n",
    )


def _already_registered(email: str) -> MailMessage:
    return MailMessage(
        email,
        "You have an account already",
        "Somebody, perhaps you, tried to register with this address. You have an account already: sign in, or ask for "
        "a password reset.\n",
    )
