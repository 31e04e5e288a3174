"""A data folder made once: its first start and its first account take seconds, and most tests are not about them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.control_plane_process import SECRETS, run

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session")
def made_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process") / "data"
    made = run("create-admin", "--email", "root@example.org", stdin=PASSWORD + "\n", **SECRETS, DATA_DIR=str(folder))
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def data_folder(made_folder: Path, tmp_path: Path) -> Path:
    """A copy of its own, with the administrator root@example.org."""
    return Path(shutil.copytree(made_folder, tmp_path / "data"))
