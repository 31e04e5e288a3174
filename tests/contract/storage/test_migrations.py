"""Migrations: idempotent, safe from two processes at once, refused when the database is newer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.errors import StorageTooNew
from controlplane.storage.database import Database
from controlplane.storage.migrations import CURRENT_VERSION, INDEXES, migrate, stored_version
from tests.contract.storage import processes


async def indexes_of(database: Database) -> dict[str, dict[str, Any]]:
    names = sorted(await database.handle.list_collection_names())
    return {name: dict(await database.collection(name).index_information()) for name in names}


@pytest.mark.gen_test
async def test_every_index_is_there_with_its_options(empty_database: Database) -> None:
    await migrate(empty_database)
    indexes = await indexes_of(empty_database)
    for collection, wanted in INDEXES.items():
        assert set(indexes[collection]) == {"_id_", *(model.document["name"] for model in wanted)}
    assert indexes["users"]["email"]["unique"]
    assert indexes["instances"]["vmid"]["partialFilterExpression"] == {"deleted": False}
    expiring = dict.fromkeys(("sessions", "refresh_hashes"), 86400) | {"reset_tokens": 0}
    for name, seconds in expiring.items():
        assert indexes[name]["expires_at"]["expireAfterSeconds"] == seconds
    assert indexes["idempotency"]["started_at"]["expireAfterSeconds"] == 86_400
    assert await stored_version(empty_database) == CURRENT_VERSION


@pytest.mark.gen_test
async def test_migrating_again_changes_nothing_and_mends_a_missing_index(empty_database: Database) -> None:
    await migrate(empty_database)
    before = await indexes_of(empty_database)
    await empty_database.collection("users").drop_index("email")
    await migrate(empty_database)
    assert await indexes_of(empty_database) == before


@pytest.mark.gen_test
async def test_many_at_once_in_one_process_agree(empty_database: Database) -> None:
    await asyncio.gather(*(migrate(empty_database) for _ in range(8)))
    assert await stored_version(empty_database) == CURRENT_VERSION


@pytest.mark.gen_test
async def test_two_processes_at_once_are_safe(empty_database: Database, mongodb_uri: str) -> None:
    starting = [processes.start("migrate", mongodb_uri, empty_database.name) for _ in range(2)]
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in starting))
    assert [output for output, _ in outputs] == ["migrated\n", "migrated\n"]
    assert await stored_version(empty_database) == CURRENT_VERSION
    assert set(await indexes_of(empty_database)) >= set(INDEXES)


@pytest.mark.gen_test
async def test_a_newer_database_is_refused_and_left_as_it_is(empty_database: Database) -> None:
    await empty_database.collection("meta").insert_one({"_id": "schema", "version": CURRENT_VERSION + 5})
    with pytest.raises(StorageTooNew) as caught:
        await migrate(empty_database)
    assert str(CURRENT_VERSION + 5) in caught.value.message
    assert f"up to {CURRENT_VERSION}" in caught.value.message
    assert await empty_database.handle.list_collection_names() == ["meta"]
