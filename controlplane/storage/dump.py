"""Export and import in mongodump's shape: the way from the embedded database to MongoDB, and back.

    FOLDER/DATABASE/COLLECTION.bson             the documents, one after the other, each led by its length
    FOLDER/DATABASE/COLLECTION.metadata.json    options and indexes, as MongoDB Extended JSON

`mongorestore FOLDER` reads it as well. Only the domain's own collections matter to an import, but all are taken along.
An export sees each collection as it is read, not all at one moment: stop the control plane for an exact copy.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import bson
from bson import json_util
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from controlplane.errors import Conflict, StorageDamaged, StorageError, StorageTooNew
from controlplane.storage.database import Database
from controlplane.storage.durable_files import sync_folder
from controlplane.storage.failures import translated
from controlplane.storage.migrations import CURRENT_VERSION, INDEX_SECONDS

_T = TypeVar("_T")

BATCH_DOCUMENTS = 500
BATCH_BYTES = 4 << 20
BATCH_SECONDS = 60.0
MAX_DOCUMENT_BYTES = 16 << 20  # MongoDB's limit, without what it allows for its own use
_LENGTH = struct.Struct("<i")
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_SYSTEM_PREFIX = "system."


@dataclass(frozen=True, slots=True)
class Dumped:
    """One collection in a folder: its files, what the metadata says, how many documents were counted."""

    name: str
    file: Path
    options: Mapping[str, Any]
    indexes: Sequence[Mapping[str, Any]]
    count: int


# -- export ------------------------------------------------------------------------------------------------------------


async def export_database(database: Database, folder: Path) -> list[tuple[str, int]]:
    """Name and number of documents of each collection. Raises StorageError when the folder holds something already, or
    cannot be written; what was written until then stays, for there is no telling whose it is."""
    target = folder / database.name
    await _on_disk(_make_empty, folder, target)
    with translated():
        listed = await database.handle.list_collections()
        collections = sorted([entry async for entry in listed], key=lambda entry: str(entry["name"]))
    counts = []
    for entry in collections:
        name = str(entry["name"])
        if entry.get("type", "collection") != "collection" or name.startswith(_SYSTEM_PREFIX):
            continue
        counts.append((name, await _export_collection(database, target, name, entry)))
    await _on_disk(_sync_folders, folder, target)
    return counts


async def _export_collection(database: Database, target: Path, name: str, entry: Mapping[str, Any]) -> int:
    with translated():
        indexes = [dict(index) async for index in database.collection(name).list_indexes()]
    uuid = entry.get("info", {}).get("uuid")
    metadata = {
        "indexes": indexes,
        "options": entry.get("options", {}),
        "uuid": uuid.hex() if isinstance(uuid, bytes) else (uuid if isinstance(uuid, UUID) else uuid4()).hex,
        "collectionName": name,
        "type": "collection",
    }
    text = json_util.dumps(metadata, json_options=json_util.CANONICAL_JSON_OPTIONS)
    await _on_disk(_append, target / f"{name}.metadata.json", text.encode())
    file = target / f"{name}.bson"
    await _on_disk(_append, file, b"")
    count = 0
    async for batch in _raw_batches(database, name):
        count += len(batch)
        await _on_disk(_append, file, b"".join(batch))
    await _on_disk(_sync_file, file)
    return count


async def _raw_batches(database: Database, name: str) -> AsyncIterator[list[bytes]]:
    """In order of `_id`, so that two exports of the same documents are the same bytes."""
    collection = database.handle.get_collection(name, codec_options=_RAW)
    cursor = collection.find({}, batch_size=BATCH_DOCUMENTS).sort("_id", 1)
    while True:
        with translated(), database.deadline(BATCH_SECONDS):
            documents = await cursor.to_list(BATCH_DOCUMENTS)
        if not documents:
            return
        yield [bytes(cast(RawBSONDocument, document).raw) for document in documents]


# -- import ------------------------------------------------------------------------------------------------------------


async def import_database(database: Database, folder: Path) -> list[tuple[str, int]]:
    """Name and number of documents of each collection. To be called before `migrate`, which fills a database.

    Everything is read and checked before the first write; what fails after that leaves a part in the database.
    Raises Conflict when the database is not empty, StorageDamaged naming file and offset, StorageTooNew for a dump of
    a newer control plane, StorageError when the folder holds no dump, or documents that contradict their indexes.
    """
    await _require_empty(database)
    collections = await _on_disk(_check_dump, folder)
    for dumped in collections:
        await _create_collection(database, dumped)
    for dumped in collections:
        await _insert_documents(database, dumped)
    return [(dumped.name, dumped.count) for dumped in collections]


async def _require_empty(database: Database) -> None:
    with translated():
        names = sorted(await database.handle.list_collection_names())
    if names:
        raise Conflict(
            f"The database {database.name!r} is not empty, it holds: {', '.join(names)}. Nothing was imported."
        )


async def _create_collection(database: Database, dumped: Dumped) -> None:
    with translated(), database.deadline(INDEX_SECONDS):
        await database.handle.command({"create": dumped.name, **dumped.options})
        specifications = [
            {key: value for key, value in index.items() if key not in ("ns", "v")}
            for index in dumped.indexes
            if index["name"] != "_id_"
        ]
        if specifications:
            await database.handle.command({"createIndexes": dumped.name, "indexes": specifications})


async def _insert_documents(database: Database, dumped: Dumped) -> None:
    collection = database.collection(dumped.name)
    batches = _batches(dumped.file)
    while batch := await _on_disk(next, batches, None):
        try:
            with translated(), database.deadline(BATCH_SECONDS):
                await collection.insert_many([RawBSONDocument(raw) for raw in batch], ordered=True)
        except (BulkWriteError, DuplicateKeyError) as error:
            raise StorageError(
                f"{dumped.file}: a document contradicts a unique index. The database {database.name!r} holds "
                "a part of the dump now: drop it before another import."
            ) from error


def _check_dump(folder: Path) -> list[Dumped]:
    holders = sorted({file.parent for file in folder.glob("*/*.metadata.json")})
    if not folder.is_dir() or not holders:
        raise StorageError(f"{folder} holds no dump: FOLDER/DATABASE/COLLECTION.bson and .metadata.json are expected.")
    if len(holders) > 1:
        raise StorageError(f"{folder} holds more than one database: {', '.join(each.name for each in holders)}.")
    holder = holders[0]
    names = {file.name.removesuffix(".metadata.json") for file in holder.glob("*.metadata.json")}
    names |= {file.name.removesuffix(".bson") for file in holder.glob("*.bson")}
    collections = [_check_collection(holder, name) for name in sorted(names) if not name.startswith(_SYSTEM_PREFIX)]
    for dumped in collections:
        if dumped.name == "meta":
            _check_version(dumped)
    return collections


def _check_collection(holder: Path, name: str) -> Dumped:
    metadata_file, file = holder / f"{name}.metadata.json", holder / f"{name}.bson"
    for each in (metadata_file, file):
        if not each.is_file():
            raise StorageDamaged(f"The dump is incomplete: {each} is missing. Nothing was imported.")
    try:
        metadata = json_util.loads(metadata_file.read_text())
        options, indexes = dict(metadata["options"]), [dict(index) for index in metadata["indexes"]]
        named = [index["key"] and index["name"] for index in indexes]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageDamaged(f"The dump is damaged: {metadata_file} cannot be read. Nothing was imported.") from error
    if not all(named):
        raise StorageDamaged(f"The dump is damaged: {metadata_file} has an index without key or name.")
    count = 0
    for offset, raw in _documents(file):
        try:
            bson.decode(raw)
        except (InvalidBSON, ValueError) as error:
            raise _torn(file, offset, "the document there cannot be read") from error
        count += 1
    return Dumped(name, file, options, indexes, count)


def _check_version(dumped: Dumped) -> None:
    for _, raw in _documents(dumped.file):
        row = bson.decode(raw)
        if row.get("_id") == "schema" and row["version"] > CURRENT_VERSION:
            raise StorageTooNew(
                f"The dump {dumped.file.parent} was written by a newer control plane: its schema has version "
                f"{row['version']}, this program knows versions up to {CURRENT_VERSION}. Nothing was imported."
            )


def _documents(file: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each document."""
    offset = 0
    with file.open("rb") as stream:
        while head := stream.read(_LENGTH.size):
            if len(head) < _LENGTH.size:
                raise _torn(file, offset, "the file ends within a document's length")
            (length,) = _LENGTH.unpack(head)
            if not 5 <= length <= MAX_DOCUMENT_BYTES:
                raise _torn(file, offset, f"{length} is no length of a document")
            rest = stream.read(length - _LENGTH.size)
            if len(rest) < length - _LENGTH.size:
                raise _torn(file, offset, "the file ends within a document")
            yield offset, head + rest
            offset += length


def _batches(file: Path) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for _, raw in _documents(file):
        batch.append(raw)
        size += len(raw)
        if len(batch) >= BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _torn(file: Path, offset: int, what: str) -> StorageDamaged:
    return StorageDamaged(
        f"The dump is damaged: {file} at byte {offset}: {what}. Nothing was imported.",
        details={"file": str(file), "offset": offset},
    )


# -- disk --------------------------------------------------------------------------------------------------------------


async def _on_disk(work: Callable[..., _T], *arguments: Any) -> _T:
    try:
        return await asyncio.to_thread(work, *arguments)
    except OSError as error:
        raise StorageError(f"{error.filename}: {error.strerror}.") from error


def _make_empty(folder: Path, target: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} is not an empty folder. Nothing was exported.")
    target.mkdir(mode=0o700, parents=True)


def _append(file: Path, content: bytes) -> None:
    """Readable by our user alone: a dump holds password hashes."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as stream:
        stream.write(content)


def _sync_file(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folders(folder: Path, target: Path) -> None:
    for file in target.iterdir():
        _sync_file(file)
    for folder_made in (target, folder):
        sync_folder(folder_made)
