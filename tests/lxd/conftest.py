"""Fixtures of `make lxd-check`. Nothing is skipped: without LXD these tests fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lxd.house import Lxd, make_seed


@pytest.fixture(scope="session")
def lxd() -> Iterator[Lxd]:
    """TEST_LXD_START is the program that starts a daemon on a folder, TEST_LXD_FOLDER that folder."""
    script, folder = os.environ.get("TEST_LXD_START", ""), os.environ.get("TEST_LXD_FOLDER", "")
    assert script, "TEST_LXD_START names no program that starts LXD: run make lxd-check"
    assert folder, "TEST_LXD_FOLDER names no folder for LXD: run make lxd-check"
    server = Lxd(Path(script), Path(folder))
    server.remove_all()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_left(lxd: Lxd) -> Iterator[None]:
    """Whatever a test that failed left behind."""
    yield
    lxd.remove_all()


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seed(tmp_path_factory.mktemp("seed") / "files")
