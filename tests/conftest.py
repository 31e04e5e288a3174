"""Fixtures shared by the tests: a real database server for the session, an empty migrated database for each test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from controlplane.storage.database import Database
from controlplane.storage.migrations import migrate
from tests.embedded import EmbeddedThread

TIMEOUT_SECONDS = 30.0
"""The database is there: it may be slow for a while, as where many tests share a disk, and no test is about that."""

ASYNC_TEST_SECONDS = 60.0
"""For a test that says nothing itself; pytest-tornado's own 5 s are a moment on a machine with other things to do."""

TESTS = Path(__file__).parent
FOLDER_MARKS = {"browser": "browser", "game": "game", "ide": "ide", "lxd": "lxd", "stripe": "stripe_mock"}
"""What all tests of a folder need, and `make test` does not: none of them can be forgotten there."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = FOLDER_MARKS.get(item.path.relative_to(TESTS).parts[0])
        if mark is not None:
            item.add_marker(mark)


def pytest_configure(config: pytest.Config) -> None:
    config.option.async_test_timeout = max(config.option.async_test_timeout, ASYNC_TEST_SECONDS)


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """TEST_MONGODB_URI where it is set, else the embedded server, started once and stopped at the end."""
    given = os.environ.get("TEST_MONGODB_URI")
    if given:
        yield given
        return
    with EmbeddedThread(tmp_path_factory.mktemp("database") / "storage") as embedded:
        yield embedded.uri


@pytest.fixture
def empty_database(mongodb_uri: str, io_loop: IOLoop) -> Iterator[Database]:
    """A database of its own name, without any collection; dropped afterwards."""
    database = Database(mongodb_uri, f"test_{secrets.token_hex(8)}", timeout_seconds=TIMEOUT_SECONDS)
    try:
        yield database
    finally:

        async def drop() -> None:
            await database.handle.client.drop_database(database.name)

        io_loop.run_sync(drop)
        database.close()


@pytest.fixture
def database(empty_database: Database, io_loop: IOLoop) -> Database:
    """As `empty_database`, migrated."""
    io_loop.run_sync(lambda: migrate(empty_database))
    return empty_database
