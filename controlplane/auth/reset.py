"""Password resets by mail: one link, used once, valid for a short time. Rule: OWASP ASVS 5.0 section 6.4.

The same answer in the same time whether or not the account exists: looking it up and sending mail come after it.
"""

from __future__ import annotations

from datetime import timedelta

from controlplane.auth.authenticator import Authenticator
from controlplane.auth.background import AfterAnswer
from controlplane.auth.passwords import Hasher, check_password
from controlplane.auth.sessions import normalize_email
from controlplane.auth.throttle import LoginThrottle
from controlplane.auth.tokens import random_secret, secret_hash
from controlplane.errors import Conflict, Unauthenticated
from controlplane.models import ResetToken
from controlplane.ports import Clock, Mailer, MailMessage, ResetTokenRepository, SessionRepository, UserRepository


class PasswordResetService:
    """`public_url` is where people reach the service, without a slash at its end."""

    def __init__(
        self,
        *,
        users: UserRepository,
        sessions: SessionRepository,
        reset_tokens: ResetTokenRepository,
        hasher: Hasher,
        throttle: LoginThrottle,
        authenticator: Authenticator,
        mailer: Mailer,
        clock: Clock,
        public_url: str,
        reset_token_minutes: int,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._reset_tokens = reset_tokens
        self._hasher = hasher
        self._throttle = throttle
        self._authenticator = authenticator
        self._mailer = mailer
        self._clock = clock
        self._public_url = public_url
        self._lifetime = timedelta(minutes=reset_token_minutes)
        self.after_answer = AfterAnswer()

    async def forgot(self, email: str, *, address: str) -> None:
        """Send a link, if there is such an account. Raises TooManyRequests."""
        email = normalize_email(email)
        self._throttle.mail_attempt(email, address)
        self.after_answer.start("password reset mail", self._send_link(email))

    async def _send_link(self, email: str) -> None:
        user = await self._users.find_by_email(email)
        if user is None or user.suspension is not None:
            return
        secret = random_secret()
        now = self._clock.now()
        await self._reset_tokens.replace_for_user(ResetToken(secret_hash(secret), user.id, now, now + self._lifetime))
        minutes = int(self._lifetime.total_seconds() // 60)
        # In the fragment: browsers do not send it, so it reaches neither an access log nor a Referer header.
        text = (
            f"Set a new password within {minutes} minutes:\n\n{self._public_url}/#reset={secret}\n\n"
            "If you did not ask for this, do nothing: your password stays as it is.\n"
        )
        await self._mailer.send(MailMessage(user.email, "Set a new password", text))

    async def reset(self, token: str, password: str, *, address: str) -> None:
        """Set the password and end every session. Raises Unauthenticated (`reset_invalid`) and InvalidInput."""
        self._throttle.login_attempt("password reset", address)
        check_password(password, "")
        now = self._clock.now()
        taken = await self._reset_tokens.consume(secret_hash(token), now)
        user = None if taken is None else await self._users.get(taken.user_id)
        if user is None or user.suspension is not None:
            raise Unauthenticated("This reset link was used, is too old or never was.", code="reset_invalid")
        new_hash = await self._hasher.hash(password)
        if not await self._users.set_password(user.id, expected_hash=user.password_hash, new_hash=new_hash, at=now):
            raise Conflict("The password was changed by somebody else at the same time.", code="password_changed")
        for session_id in await self._sessions.revoke_all(user.id, at=now, reason="password_reset"):
            self._authenticator.evict_session(session_id)

    async def close(self) -> None:
        await self.after_answer.close()
