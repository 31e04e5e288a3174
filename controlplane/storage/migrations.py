"""Brings a database to the form that this code expects: indexes, and numbered changes, each applied once.

Every step is idempotent, so that one that was interrupted, or ran twice, does no harm. A lease keeps two processes
that start at once from working side by side.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pymongo import ASCENDING, IndexModel

from controlplane.errors import StorageTooNew, StorageUnavailable
from controlplane.storage.database import Database
from controlplane.storage.failures import translated
from controlplane.storage.leases import MongoLeaseRepository

logger = logging.getLogger(__name__)

LEASE_NAME = "migrations"
LEASE_SECONDS = 120.0
INDEX_SECONDS = 60.0
_WAIT_SECONDS = 0.2
_DAY = int(timedelta(days=1).total_seconds())
_LIVE = {"deleted": False}

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    "users": (IndexModel([("email", ASCENDING)], name="email", unique=True),),
    "sessions": (
        IndexModel([("user_id", ASCENDING)], name="user_id"),
        # A day later, as an access token may outlive its session by minutes and asks whether it was revoked.
        IndexModel([("expires_at", ASCENDING)], name="expires_at", expireAfterSeconds=_DAY),
    ),
    "refresh_hashes": (IndexModel([("expires_at", ASCENDING)], name="expires_at", expireAfterSeconds=_DAY),),
    "api_keys": (
        IndexModel([("secret_hash", ASCENDING)], name="secret_hash", unique=True),
        IndexModel([("user_id", ASCENDING)], name="user_id"),
    ),
    "reset_tokens": (
        IndexModel([("token_hash", ASCENDING)], name="token_hash", unique=True),
        IndexModel([("expires_at", ASCENDING)], name="expires_at", expireAfterSeconds=0),
    ),
    "instances": (
        IndexModel([("vmid", ASCENDING)], name="vmid", unique=True, partialFilterExpression=_LIVE),
        IndexModel(
            [("address", ASCENDING), ("port", ASCENDING)],
            name="address_port",
            unique=True,
            partialFilterExpression=_LIVE,
        ),
        IndexModel([("written_at", ASCENDING)], name="written_at"),
        IndexModel([("owner_id", ASCENDING)], name="owner_id"),
    ),
    "agent_states": (IndexModel([("written_at", ASCENDING)], name="written_at"),),
    "idempotency": (IndexModel([("started_at", ASCENDING)], name="started_at", expireAfterSeconds=_DAY),),
    "static_hosts": (
        IndexModel([("vmid", ASCENDING)], name="vmid", unique=True, partialFilterExpression={"is_taken": True}),
    ),
    "console_tickets": (IndexModel([("expires_at", ASCENDING)], name="expires_at", expireAfterSeconds=0),),
    "ide_tokens": (
        IndexModel([("expires_at", ASCENDING)], name="expires_at", expireAfterSeconds=0),
        IndexModel([("instance_id", ASCENDING)], name="instance_id"),
    ),
    "ide_sessions": (
        IndexModel([("idle_until", ASCENDING)], name="idle_until", expireAfterSeconds=0),
        IndexModel([("instance_id", ASCENDING)], name="instance_id"),
    ),
    "audit": (IndexModel([("at", ASCENDING)], name="at"),),
    "webhook_deliveries": (
        IndexModel([("endpoint_id", ASCENDING), ("state", ASCENDING), ("next_attempt_at", ASCENDING)], name="due"),
        IndexModel([("created_at", ASCENDING)], name="created_at", expireAfterSeconds=30 * _DAY),
    ),
    "operations": (
        IndexModel([("key", ASCENDING)], name="key", unique=True, partialFilterExpression={"is_keyed": True}),
        IndexModel(
            [("instance_id", ASCENDING)],
            name="active_instance",
            unique=True,
            partialFilterExpression={"is_finished": False},
        ),
        IndexModel([("instance_id", ASCENDING), ("phase", ASCENDING)], name="instance_phase"),
        IndexModel([("owner_id", ASCENDING), ("_id", ASCENDING)], name="owner_id"),
        IndexModel([("is_finished", ASCENDING), ("due_at", ASCENDING)], name="due_at"),
        IndexModel([("written_at", ASCENDING)], name="written_at"),
        # Those that need an administrator have no end, and stay until somebody acted.
        IndexModel([("finished_at", ASCENDING)], name="finished_at", expireAfterSeconds=180 * _DAY),
    ),
    "vmids": (IndexModel([("operation_id", ASCENDING)], name="operation_id"),),
    # Billing. Events are sent again for 3 days and can be read for 30; notices and reports are kept for longer.
    "billing_accounts": (
        IndexModel(
            [("customer_id", ASCENDING)],
            name="customer_id",
            unique=True,
            partialFilterExpression={"customer_id": {"$exists": True}},
        ),
        IndexModel([("attention_at", ASCENDING)], name="attention_at"),
        IndexModel([("written_at", ASCENDING)], name="written_at"),
    ),
    "billing_inbox": (
        IndexModel([("received_at", ASCENDING)], name="received_at", expireAfterSeconds=90 * _DAY),
        IndexModel([("state", ASCENDING), ("received_at", ASCENDING)], name="state_received_at"),
    ),
    "billing_notices": (
        IndexModel([("open", ASCENDING), ("created_at", ASCENDING)], name="open_created_at"),
        IndexModel([("created_at", ASCENDING)], name="created_at", expireAfterSeconds=400 * _DAY),
    ),
    "billing_drift": (IndexModel([("started_at", ASCENDING)], name="started_at", expireAfterSeconds=90 * _DAY),),
}


@dataclass(frozen=True, slots=True)
class Migration:
    """`version` is what the database has once `apply` is through."""

    version: int
    title: str
    apply: Callable[[Database], Awaitable[None]]


async def ensure_indexes(database: Database) -> None:
    """Build what is missing. Raises StorageError when an index of that name exists in another form."""
    with database.deadline(INDEX_SECONDS):
        for name, indexes in INDEXES.items():
            with translated():
                await database.collection(name).create_indexes(list(indexes))


MIGRATIONS: Sequence[Migration] = (
    Migration(1, "collections and indexes", ensure_indexes),
    Migration(2, "operations and vmids", ensure_indexes),
)
CURRENT_VERSION = MIGRATIONS[-1].version


async def stored_version(database: Database) -> int:
    """0 for a database that was never migrated."""
    with translated():
        row = await database.collection("meta").find_one({"_id": "schema"})
    return 0 if row is None else int(row["version"])


async def migrate(database: Database) -> None:
    """Raises StorageTooNew, with nothing changed, when a newer control plane has written this database."""
    if await _is_current(database):
        await ensure_indexes(database)
        return
    leases = MongoLeaseRepository(database)
    owner = secrets.token_hex(8)
    await _wait_for_turn(leases, owner)
    try:
        if not await _is_current(database):
            await _apply_missing(database, leases, owner)
    finally:
        await leases.release(LEASE_NAME, owner)


async def _wait_for_turn(leases: MongoLeaseRepository, owner: str) -> None:
    """The lease ends by itself when its holder dies: waiting for two of its lengths is enough."""
    for _ in range(int(2 * LEASE_SECONDS / _WAIT_SECONDS)):
        if await leases.acquire(LEASE_NAME, owner, ttl_seconds=LEASE_SECONDS) is not None:
            return
        await asyncio.sleep(_WAIT_SECONDS)
    raise StorageUnavailable("Another process has been migrating the database for minutes.")


async def _is_current(database: Database) -> bool:
    version = await stored_version(database)
    if version > CURRENT_VERSION:
        raise StorageTooNew(
            f"The database {database.name!r} was written by a newer control plane: its schema has version {version}, "
            f"this program knows versions up to {CURRENT_VERSION}. Nothing was changed."
        )
    return version == CURRENT_VERSION


async def _apply_missing(database: Database, leases: MongoLeaseRepository, owner: str) -> None:
    version = await stored_version(database)
    for migration in MIGRATIONS:
        if migration.version <= version:
            continue
        if await leases.acquire(LEASE_NAME, owner, ttl_seconds=LEASE_SECONDS) is None:
            raise StorageUnavailable("Another process took over the database's migration.")
        await migration.apply(database)
        with translated():
            await database.collection("meta").update_one(
                {"_id": "schema"}, {"$max": {"version": migration.version}}, upsert=True
            )
        logger.info("database migrated", extra={"version": migration.version, "migration": migration.title})
