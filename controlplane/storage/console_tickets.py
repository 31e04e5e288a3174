"""One-time tickets for console websockets, in `console_tickets`, by the hash of the ticket."""

from __future__ import annotations

from datetime import datetime

from controlplane.models import ConsoleTicket
from controlplane.storage.database import Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated
from controlplane.storage.principals import principal_fields, to_principal


class MongoConsoleTicketRepository:
    """Satisfies `ports.ConsoleTicketRepository`."""

    def __init__(self, database: Database) -> None:
        self._tickets = database.collection("console_tickets")

    async def add(self, ticket: ConsoleTicket) -> None:
        with translated():
            await self._tickets.insert_one(
                {
                    "_id": exact(ticket.ticket_hash),
                    "instance_id": ticket.instance_id,
                    **principal_fields(ticket.principal),
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
    return ConsoleTicket(
        row["_id"], row["instance_id"], to_principal(row), row["credential_expires_at"], row["expires_at"]
    )
