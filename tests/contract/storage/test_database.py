"""The connection: what is away or refuses us is `StorageUnavailable`, within the time allowed, without the password."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from controlplane.errors import ConfigurationError, StorageUnavailable
from controlplane.storage.database import Database
from controlplane.storage.users import MongoUserRepository
from tests.contract.storage.processes import eventually
from tests.free_ports import closed_port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Something that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def refusal(uri: str, *, timeout_seconds: float = 0.5) -> StorageUnavailable:
    """Of a ping; a read is refused too. Each has a client of its own: one that was refused looks again after 10 s."""
    for operation in (lambda database: MongoUserRepository(database).get("usr_1"), Database.ping):
        database = Database(uri, "somewhere", timeout_seconds=timeout_seconds)
        try:
            async with asyncio.timeout(25):  # sooner than pymongo's own 30 s
                with pytest.raises(StorageUnavailable) as caught:
                    await operation(database)
        finally:
            database.close()
    return caught.value


@pytest.mark.gen_test
async def test_a_server_that_answers_is_alive_and_tells_the_time(database: Database) -> None:
    await database.ping()
    first, second = await database.server_now(), await database.server_now()
    assert first.utcoffset() == timedelta(0)
    assert first <= second


@pytest.mark.gen_test
async def test_a_dead_port_is_unavailable_and_named() -> None:
    with closed_port() as port:
        uri = f"mongodb://127.0.0.1:{port}/"
        await refusal(uri)
        database = Database(uri, "somewhere", timeout_seconds=0.5)

        async def is_named() -> bool:
            """Not by a client whose time is over before it came to try."""
            with pytest.raises(StorageUnavailable) as caught:
                await database.ping()
            return str(port) in caught.value.message

        await eventually(is_named)
        database.close()


@pytest.mark.gen_test
async def test_a_silent_server_is_unavailable(silent_port: int) -> None:
    await refusal(f"mongodb://127.0.0.1:{silent_port}/?directConnection=true")


@pytest.mark.gen_test
async def test_a_host_that_does_not_exist_is_unavailable() -> None:
    await refusal("mongodb://database.invalid:27017/")


@pytest.mark.gen_test
async def test_a_wrong_password_is_unavailable_and_does_not_show(mongodb_uri: str) -> None:
    parts = urlsplit(mongodb_uri)
    uri = f"mongodb://someone:open-sesame@{parts.hostname}:{parts.port}/?directConnection=true"
    error = await refusal(uri, timeout_seconds=20)  # it is answered; no password is checked at once
    assert "password" in error.message
    assert "open-sesame" not in error.message


@pytest.mark.gen_test
async def test_after_close_it_is_unavailable(mongodb_uri: str) -> None:
    database = Database(mongodb_uri, "somewhere", timeout_seconds=30)
    await database.ping()
    database.close()
    with pytest.raises(StorageUnavailable):
        await database.ping()


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://",
        "mongodb://user:pa@ss:word@host/",
        "mongodb://host:port/",
        "mongodb://user:secret%zz@host:99999/",
    ],
)
@pytest.mark.gen_test
async def test_an_unreadable_connection_string_is_a_setting_at_fault(uri: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Database(uri, "somewhere", timeout_seconds=1)
    assert caught.value.setting == "MONGODB_URI"
    assert "secret" not in caught.value.message
    assert "word" not in caught.value.message.replace("password", "")


@pytest.mark.gen_test
async def test_an_impossible_name_is_a_setting_at_fault() -> None:
    with pytest.raises(ConfigurationError):
        Database("mongodb://127.0.0.1/", "a.b", timeout_seconds=1)
