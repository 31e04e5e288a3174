"""The connection to MongoDB through Motor: one client, bounded in time and in sockets, with aware times.

It knows databases and collections, not what is in them: each repository owns its collection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import pymongo
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorCursor, AsyncIOMotorDatabase
from pymongo import WriteConcern
from pymongo.errors import ConfigurationError as MongoConfigurationError
from pymongo.errors import InvalidURI

from controlplane.errors import ConfigurationError, StorageUnavailable
from controlplane.storage.failures import translated

Document: TypeAlias = dict[str, Any]
Collection: TypeAlias = "AsyncIOMotorCollection[Document]"

MAX_CONNECTIONS = 32
_ROWS_AT_ONCE = 50  # records made between two turns of the loop: well under a millisecond

# pymongo encodes or decodes a batch in one go, with the interpreter's lock: 5,000 rows held up the loop for 25 ms.
BATCH_ROWS = 100

# SecantusDB compares every row of a large `$in` with every value: 2,000 take seconds where 40 times 50 take 0.3 s.
IN_VALUES_AT_ONCE = 50

_DURABLE = WriteConcern(w="majority", j=True)
_FAST = WriteConcern(w=1)
_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)
_ANSWER: CodecOptions[Mapping[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)

_T = TypeVar("_T")


class Database:
    """`timeout_seconds` bounds each operation as a whole: finding the server, waiting for a socket, the answer.

    Raises ConfigurationError when the connection string cannot be read; nothing connects before the first operation.
    """

    def __init__(self, uri: str, name: str, *, timeout_seconds: float) -> None:
        milliseconds = max(1, int(timeout_seconds * 1000))
        try:
            self._client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
                uri,
                appname="controlplane",
                maxPoolSize=MAX_CONNECTIONS,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                socketTimeoutMS=milliseconds,
                waitQueueTimeoutMS=milliseconds,
                timeoutMS=milliseconds,
            )
            self._database: AsyncIOMotorDatabase[Document] = self._client.get_database(name, codec_options=_CODEC)
        except (InvalidURI, MongoConfigurationError, pymongo.errors.InvalidName, ValueError):
            # Not `from error`: pymongo quotes the piece it could not read, which may be a password not escaped.
            raise ConfigurationError(
                "MONGODB_URI",
                "is not a connection string that can be read, or the database's name is not one; "
                "user and password must be percent-encoded (https://www.mongodb.com/docs/manual/reference/connection-string/)",
            ) from None
        self.name = name
        self._timeout_seconds = timeout_seconds

    @property
    def handle(self) -> AsyncIOMotorDatabase[Document]:
        """Motor's own database, for what is about collections rather than documents."""
        return self._database

    def collection(self, name: str, *, durable: bool = True) -> Collection:
        """With `durable`, a write is acknowledged by a majority, from the journal; else by the primary's memory."""
        return self._database.get_collection(name, codec_options=_CODEC, write_concern=_DURABLE if durable else _FAST)

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Another bound on the operations inside than `timeout_seconds`: building an index may take longer."""
        with pymongo.timeout(seconds):
            yield

    async def ping(self) -> None:
        """Raises StorageUnavailable."""
        try:
            async with asyncio.timeout(self._timeout_seconds + 0.5):  # name resolution has no timeout of its own
                with translated():
                    await self._database.command("ping")
        except TimeoutError as error:
            raise StorageUnavailable("The database did not answer in time.") from error

    async def server_now(self) -> datetime:
        """The clock that `written_at` and leases are read from."""
        with translated():
            answer = await self._database.command("hello", codec_options=_ANSWER)
        now = answer["localTime"]
        assert isinstance(now, datetime)
        return now

    def close(self) -> None:
        self._client.close()


async def read_all(cursor: AsyncIOMotorCursor[Document], convert: Callable[[Document], _T]) -> list[_T]:
    """Every row of a cursor as a record, a few at a time, so that the loop turns between."""
    records: list[_T] = []
    cursor.batch_size(BATCH_ROWS)
    with translated():
        while rows := await cursor.to_list(_ROWS_AT_ONCE):
            records.extend(convert(row) for row in rows)
            await asyncio.sleep(0)
    return records


async def find_by_ids(
    collection: Collection, ids: Sequence[str], convert: Callable[[Document], _T]
) -> AsyncIterator[tuple[str, _T]]:
    """Those that exist, as (id, record)."""
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), IN_VALUES_AT_ONCE):
        some = wanted[start : start + IN_VALUES_AT_ONCE]
        rows = await read_all(collection.find({"_id": {"$in": some}}), lambda row: (str(row["_id"]), convert(row)))
        for pair in rows:
            yield pair
