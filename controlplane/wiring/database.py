"""The database and what is kept in it: opened with its embedded server, brought up to date, exported and imported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from controlplane.settings import Settings
from controlplane.storage.agent_states import MongoAgentStateRepository
from controlplane.storage.api_keys import MongoApiKeyRepository
from controlplane.storage.audit import MongoAuditRepository
from controlplane.storage.console_tickets import MongoConsoleTicketRepository
from controlplane.storage.database import Database
from controlplane.storage.dump import export_database, import_database
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.storage.idempotency import MongoIdempotencyRepository
from controlplane.storage.instances import MongoInstanceRepository
from controlplane.storage.leases import MongoLeaseRepository
from controlplane.storage.migrations import migrate
from controlplane.storage.operations import MongoOperationRepository
from controlplane.storage.reset_tokens import MongoResetTokenRepository
from controlplane.storage.sessions import MongoSessionRepository
from controlplane.storage.users import MongoUserRepository
from controlplane.storage.vmids import MongoVmidReservations


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database of the settings, its embedded server included. Raises StorageError where its folder is unusable."""
    embedded = None
    uri = settings.mongodb_uri
    if uri is None:
        embedded = EmbeddedServer(settings.data_dir)
        uri = await embedded.start()
    database = Database(uri, settings.mongodb_database, timeout_seconds=settings.mongodb_timeout_seconds)
    try:
        yield database
    finally:
        database.close()
        if embedded is not None:
            await embedded.stop()


async def prepare_database(database: Database) -> None:
    """Bring it up to date. Raises StorageUnavailable at once when it cannot be reached."""
    await database.ping()
    await migrate(database)


async def export_to(settings: Settings, folder: Path) -> list[tuple[str, int]]:
    """Collections and how many documents of each were written."""
    async with open_database(settings) as database:
        await database.ping()
        return await export_database(database, folder)


async def import_from(settings: Settings, folder: Path) -> list[tuple[str, int]]:
    """Collections and how many documents of each were read."""
    async with open_database(settings) as database:
        await database.ping()
        return await import_database(database, folder)


@dataclass(frozen=True, slots=True)
class Repositories:
    """One of each, on one database."""

    users: MongoUserRepository
    sessions: MongoSessionRepository
    api_keys: MongoApiKeyRepository
    reset_tokens: MongoResetTokenRepository
    console_tickets: MongoConsoleTicketRepository
    instances: MongoInstanceRepository
    states: MongoAgentStateRepository
    leases: MongoLeaseRepository
    idempotency: MongoIdempotencyRepository
    audit: MongoAuditRepository
    operations: MongoOperationRepository
    vmids: MongoVmidReservations

    @classmethod
    def on(cls, database: Database) -> Repositories:
        return cls(
            users=MongoUserRepository(database),
            sessions=MongoSessionRepository(database),
            api_keys=MongoApiKeyRepository(database),
            reset_tokens=MongoResetTokenRepository(database),
            console_tickets=MongoConsoleTicketRepository(database),
            instances=MongoInstanceRepository(database),
            states=MongoAgentStateRepository(database),
            leases=MongoLeaseRepository(database),
            idempotency=MongoIdempotencyRepository(database),
            audit=MongoAuditRepository(database),
            operations=MongoOperationRepository(database),
            vmids=MongoVmidReservations(database),
        )
