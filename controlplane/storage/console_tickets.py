"""One-time tickets for console websockets, in `console_tickets`, by the hash of the ticket."""

from __future__ import annotations

from datetime import datetime

from controlplane.models import ConsoleTicket, Principal, Role
from controlplane.storage.database import Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated


class MongoConsoleTicketRepository:
    """Satisfies `ports.ConsoleTicketRepository`."""

    def __init__(self, database: Database) -> None:
        self._tickets = database.collection("console_tickets")

    async def add(self, ticket: ConsoleTicket) -> None:
        principal = ticket.principal
        with translated():
            await self._tickets.insert_one(
                {
                    "_id": exact(ticket.ticket_hash),
                    "instance_id": ticket.instance_id,
                    "user_id": principal.user_id,
                    "email": principal.email,
                    "role": principal.role.value,
                    "session_id": principal.session_id,
                    "api_key_id": principal.api_key_id,
                    "scopes": None if principal.scopes is None else sorted(principal.scopes),
                    "credential_expires_at": ticket.credential_expires_at,
                    "expires_at": ticket.expires_at,
                }
            )

    async def consume(self, ticket_hash: str, now: datetime) -> ConsoleTicket | None:
        with translated():
            row = await self._tickets.find_one_and_delete({"_id": exact(ticket_hash), "expires_at": {"$gt": now}})
        return _to_ticket(row)


def _to_ticket(row: Document | None) -> ConsoleTicket | None:
    if row is None:
        return None
    principal = Principal(
        user_id=row["user_id"],
        email=row["email"],
        role=Role(row["role"]),
        session_id=row["session_id"],
        api_key_id=row["api_key_id"],
        scopes=None if row["scopes"] is None else frozenset(row["scopes"]),
    )
    return ConsoleTicket(row["_id"], row["instance_id"], principal, row["credential_expires_at"], row["expires_at"])
