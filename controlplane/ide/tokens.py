"""One-time tokens that open an IDE: short-lived, bound to who asked, to the instance, its owner and the mode.

A token stands in the address of the new tab only until its first request exchanges it for a cookie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controlplane.auth.authenticator import Authenticator
from controlplane.auth.tokens import random_secret, secret_hash
from controlplane.errors import Conflict, Unauthenticated
from controlplane.models import AgentState, Connection, IdeMode, IdeSession, IdeToken, Instance, Principal
from controlplane.ports import Clock, IdeSessionRepository, IdeTokenRepository

MAX_TOKEN_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class IssuedIdeToken:
    secret: str = field(repr=False)
    expires_at: datetime


class IdeTokens:
    """Times in seconds. `state_of` gives the agent's state, which must be connected for an IDE to be opened."""

    def __init__(
        self,
        tokens: IdeTokenRepository,
        sessions: IdeSessionRepository,
        authenticator: Authenticator,
        state_of: Callable[[str], AgentState],
        clock: Clock,
        *,
        token_seconds: int,
        idle_seconds: int,
        max_seconds: int,
    ) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._authenticator = authenticator
        self._state_of = state_of
        self._clock = clock
        self._token_seconds = token_seconds
        self._idle_seconds = idle_seconds
        self._max_seconds = max_seconds

    @property
    def session_max_seconds(self) -> int:
        return self._max_seconds

    async def issue(self, principal: Principal, instance: Instance, mode: IdeMode) -> IssuedIdeToken:
        """Raises Conflict (`instance_disconnected`) while the agent cannot be reached. That the principal may use the
        instance is the caller's to have checked."""
        state = self._state_of(instance.id)
        if state.connection is not Connection.CONNECTED:
            raise Conflict(
                "This dev container is not connected; its IDE can be opened once it is.",
                code="instance_disconnected",
                details={"connection": state.connection.value, "reason": state.reason},
            )
        secret = random_secret()
        expires_at = self._clock.now() + timedelta(seconds=self._token_seconds)
        await self._tokens.add(
            IdeToken(
                token_hash=secret_hash(secret),
                principal=principal,
                instance_id=instance.id,
                owner_id=instance.owner_id,
                mode=mode,
                expires_at=expires_at,
            )
        )
        return IssuedIdeToken(secret, expires_at)

    async def exchange(self, secret: str, instance: Instance | None, mode: IdeMode) -> str:
        """The cookie's secret, for the IDE that was asked for; None stands for one that is not there.

        Raises Unauthenticated (`ide_token_invalid`) alike for what is no token, was used, has expired, is for another
        IDE or mode, or whose session has ended. Whatever was presented cannot be presented again.
        """
        token = None
        if len(secret) <= MAX_TOKEN_CHARACTERS:
            token = await self._tokens.consume(secret_hash(secret), self._clock.now())
        if (
            token is None
            or instance is None
            or instance.suspension is not None
            or (token.instance_id, token.owner_id, token.mode) != (instance.id, instance.owner_id, mode)
            or await self._authenticator.find_gone([token.principal])
        ):
            raise Unauthenticated("This link is not valid, or not any more.", code="ide_token_invalid")
        return await self._begin(token)

    async def _begin(self, token: IdeToken) -> str:
        now = self._clock.now()
        secret = random_secret()
        await self._sessions.add(
            IdeSession(
                cookie_hash=secret_hash(secret),
                principal=token.principal,
                instance_id=token.instance_id,
                owner_id=token.owner_id,
                mode=token.mode,
                created_at=now,
                idle_until=now + timedelta(seconds=self._idle_seconds),
                ends_at=now + timedelta(seconds=self._max_seconds),
            )
        )
        return secret
