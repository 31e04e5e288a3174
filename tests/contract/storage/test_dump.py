"""Export and import: a round trip keeps documents and indexes; what is torn, newer or not empty is refused whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, json_util
from tornado.ioloop import IOLoop

from controlplane.errors import Conflict, StorageDamaged, StorageError, StorageTooNew
from controlplane.storage.database import Database
from controlplane.storage.dump import export_database, import_database
from controlplane.storage.migrations import CURRENT_VERSION, migrate
from tests.contract.storage.moments import NOW

DOCUMENTS = 1_203


@pytest.fixture
def other_database(mongodb_uri: str, io_loop: IOLoop, database: Database) -> Iterator[Database]:
    other = Database(mongodb_uri, f"{database.name}_other", timeout_seconds=30)
    yield other

    async def drop() -> None:
        await other.handle.client.drop_database(other.name)

    io_loop.run_sync(drop)
    other.close()


@pytest.fixture
def filled(database: Database, io_loop: IOLoop) -> Database:
    """Every kind of value that may be stored, and more documents than a batch holds."""

    async def fill() -> None:
        rows: list[dict[str, Any]] = [
            {"_id": f"usr_{number:05}", "email": f"p{number}@example.org", "password_hash": "x" * 60, "at": NOW}
            for number in range(DOCUMENTS)
        ]
        await database.collection("users").insert_many(rows)
        odd = {
            "_id": ObjectId(),
            "big": Int64(1 << 60),
            "small": 7,
            "double": 1.0,
            "decimal": Decimal128("1.10"),
            "bytes": Binary(b"\x00\xff"),
            "none": None,
            "nested": {"list": [1, {"a": NOW - timedelta(days=9)}], "empty": {}},
            "text": "grüß\x00 dich",
        }
        await database.collection("odd").insert_one(odd)

    io_loop.run_sync(fill)
    return database


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def contents(database: Database) -> dict[str, Any]:
    names = sorted(await database.handle.list_collection_names())
    return {
        name: (
            await database.collection(name).find({}).sort("_id", 1).to_list(None),
            await database.collection(name).index_information(),
        )
        for name in names
    }


@pytest.mark.gen_test
async def test_a_round_trip_keeps_documents_and_indexes(
    filled: Database, other_database: Database, tmp_path: Path
) -> None:
    exported = await export_database(filled, tmp_path / "out")
    imported = await import_database(other_database, tmp_path / "out")
    assert imported == exported
    assert dict(exported)["users"] == DOCUMENTS
    assert await contents(other_database) == await contents(filled)
    await migrate(other_database)
    assert await contents(other_database) == await contents(filled)


@pytest.mark.gen_test
async def test_the_folder_has_mongodumps_shape(filled: Database, tmp_path: Path) -> None:
    await export_database(filled, tmp_path / "out")
    (holder,) = (tmp_path / "out").iterdir()
    assert holder.name == filled.name
    assert len(bson.decode_all((holder / "users.bson").read_bytes())) == DOCUMENTS
    metadata = json_util.loads((holder / "instances.metadata.json").read_text())
    assert metadata["collectionName"] == "instances"
    assert metadata["type"] == "collection"
    assert len(metadata["uuid"]) == 32
    by_name = {index["name"]: index for index in metadata["indexes"]}
    assert by_name["vmid"]["unique"] is True
    assert by_name["vmid"]["partialFilterExpression"] == {"deleted": False}
    assert all(file.stat().st_mode & 0o077 == 0 for file in holder.iterdir())


@pytest.mark.gen_test
async def test_two_exports_of_the_same_documents_are_the_same_bytes(filled: Database, tmp_path: Path) -> None:
    for name in ("one", "two"):
        await export_database(filled, tmp_path / name)
    files = sorted((tmp_path / "one").rglob("*.*"))
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.gen_test
async def test_an_export_refuses_a_folder_in_use(database: Database, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(StorageError, match="not an empty folder"):
        await export_database(database, tmp_path)
    assert names_in(tmp_path) == ["note.txt"]


@pytest.mark.gen_test
async def test_an_export_that_cannot_be_written_names_the_folder(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        await export_database(database, tmp_path / "file" / "out")


@pytest.mark.gen_test
async def test_an_import_refuses_a_database_that_is_not_empty(
    filled: Database, other_database: Database, tmp_path: Path
) -> None:
    await export_database(filled, tmp_path / "out")
    await other_database.collection("precious").insert_one({"_id": 1})
    before = await contents(other_database)
    with pytest.raises(Conflict, match="precious"):
        await import_database(other_database, tmp_path / "out")
    assert await contents(other_database) == before


@pytest.mark.gen_test
async def test_an_import_of_no_dump_is_refused(other_database: Database, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StorageError, match="holds no dump"):
            await import_database(other_database, folder)


def truncate(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 3)


def break_length(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(struct.pack("<i", 3) + content[4:])


def break_document(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4] = 0x77  # no BSON type
    file.write_bytes(content)


def append_garbage(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"\x01")


@pytest.mark.parametrize("harm", [truncate, break_length, break_document, append_garbage])
@pytest.mark.gen_test
async def test_a_torn_dump_is_named_with_the_offset_and_nothing_is_imported(
    filled: Database, other_database: Database, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    await export_database(filled, tmp_path / "out")
    file = tmp_path / "out" / filled.name / "users.bson"
    harm(file)
    with pytest.raises(StorageDamaged) as caught:
        await import_database(other_database, tmp_path / "out")
    assert str(file) in caught.value.message
    assert "at byte" in caught.value.message
    assert caught.value.details is not None
    assert caught.value.details["file"] == str(file)
    assert await other_database.handle.list_collection_names() == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"options": {}, "indexes": [{"name": "x"}]}'])
@pytest.mark.gen_test
async def test_torn_metadata_is_named(
    filled: Database, other_database: Database, tmp_path: Path, content: str | None
) -> None:
    await export_database(filled, tmp_path / "out")
    file = tmp_path / "out" / filled.name / "users.metadata.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(StorageDamaged) as caught:
        await import_database(other_database, tmp_path / "out")
    assert str(file) in caught.value.message
    assert await other_database.handle.list_collection_names() == []


@pytest.mark.gen_test
async def test_a_newer_dump_is_refused(filled: Database, other_database: Database, tmp_path: Path) -> None:
    await filled.collection("meta").update_one({"_id": "schema"}, {"$set": {"version": CURRENT_VERSION + 1}})
    await export_database(filled, tmp_path / "out")
    with pytest.raises(StorageTooNew, match=str(CURRENT_VERSION + 1)):
        await import_database(other_database, tmp_path / "out")
    assert await other_database.handle.list_collection_names() == []


@pytest.mark.gen_test
async def test_documents_that_contradict_an_index_are_reported(
    filled: Database, other_database: Database, tmp_path: Path
) -> None:
    await export_database(filled, tmp_path / "out")
    file = tmp_path / "out" / filled.name / "users.bson"
    file.write_bytes(file.read_bytes() + bson.encode({"_id": "usr_copy", "email": "p7@example.org"}))
    with pytest.raises(StorageError, match="drop it before another import"):
        await import_database(other_database, tmp_path / "out")


@pytest.mark.gen_test
async def test_a_dump_as_mongodump_writes_it_is_read(other_database: Database, tmp_path: Path) -> None:
    holder = tmp_path / "controlplane"
    holder.mkdir()
    (holder / "users.bson").write_bytes(bson.encode({"_id": "usr_1", "email": "a@example.org"}))
    metadata = {
        "indexes": [
            {"v": {"$numberInt": "2"}, "key": {"_id": {"$numberInt": "1"}}, "name": "_id_"},
            {
                "v": {"$numberInt": "2"},
                "key": {"email": {"$numberInt": "1"}},
                "name": "email",
                "unique": True,
                "ns": "controlplane.users",
            },
        ],
        "uuid": "0123456789abcdef0123456789abcdef",
        "collectionName": "users",
        "type": "collection",
        "options": {},
    }
    (holder / "users.metadata.json").write_text(json.dumps(metadata))
    (tmp_path / "oplog.bson").write_bytes(b"")
    assert await import_database(other_database, tmp_path) == [("users", 1)]
    assert (await other_database.collection("users").index_information())["email"]["unique"]
