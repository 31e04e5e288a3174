"""One-time tickets: a browser cannot set headers on a websocket, and an access token has no place in a URL.

A ticket opens one console, once, within half a minute, for whoever asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controlplane.auth.authenticator import Authenticator
from controlplane.auth.tokens import random_secret, secret_hash
from controlplane.errors import Unauthenticated
from controlplane.models import ConsoleTicket, Principal
from controlplane.ports import Clock, ConsoleTicketRepository

TICKET_SECONDS = 30
MAX_TICKET_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    secret: str = field(repr=False)
    expires_at: datetime


class ConsoleTickets:
    def __init__(self, repository: ConsoleTicketRepository, authenticator: Authenticator, clock: Clock) -> None:
        self._repository = repository
        self._authenticator = authenticator
        self._clock = clock

    async def issue(self, principal: Principal, token: str, instance_id: str) -> IssuedTicket:
        """`token` is what the principal was authenticated by: the console ends with it, unless it is renewed there."""
        now = self._clock.now()
        left = self._authenticator.seconds_left(token)
        secret = random_secret()
        expires_at = now + timedelta(seconds=TICKET_SECONDS)
        await self._repository.add(
            ConsoleTicket(
                ticket_hash=secret_hash(secret),
                instance_id=instance_id,
                principal=principal,
                credential_expires_at=None if left == float("inf") else now + timedelta(seconds=left),
                expires_at=expires_at,
            )
        )
        return IssuedTicket(secret, expires_at)

    async def redeem(self, secret: str) -> ConsoleTicket:
        """Raises Unauthenticated for what is no ticket, was used, has expired, or whose session has ended."""
        ticket = None
        if len(secret) <= MAX_TICKET_CHARACTERS:
            ticket = await self._repository.consume(secret_hash(secret), self._clock.now())
        if ticket is None or await self._authenticator.find_gone([ticket.principal]):
            raise Unauthenticated("This ticket is not valid, or not any more.", code="ticket_invalid")
        return ticket
