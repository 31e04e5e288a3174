"""A seed folder is read as it lies there, within bounds, and never follows a link out of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.errors import ProviderRefused
from controlplane.provisioning import seed
from controlplane.provisioning.seed import SeedFile, read_seed


def test_files_keep_their_places_and_permissions(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "init").write_text("#!/bin/sh\n")
    (tmp_path / "srv" / "init").chmod(0o755)
    (tmp_path / "motd").write_text("hello")
    (tmp_path / "motd").chmod(0o600)
    assert read_seed(tmp_path) == [
        SeedFile("/motd", 0o600, b"hello"),
        SeedFile("/srv/init", 0o755, b"#!/bin/sh\n"),
    ]


def test_a_link_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(ProviderRefused) as refused:
        read_seed(tmp_path)
    assert "passwd is a link" in refused.value.operator_message


def test_too_many_files_and_too_many_bytes_are_refused(tmp_path: Path) -> None:
    for number in range(seed.MAX_FILES + 1):
        (tmp_path / f"f{number:04}").touch()
    with pytest.raises(ProviderRefused):
        read_seed(tmp_path)
    for number in range(seed.MAX_FILES + 1):
        (tmp_path / f"f{number:04}").unlink()
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(seed.MAX_BYTES + 1)
    with pytest.raises(ProviderRefused):
        read_seed(tmp_path)


def test_a_folder_that_is_gone_is_refused_rather_than_empty(tmp_path: Path) -> None:
    with pytest.raises(ProviderRefused):
        read_seed(tmp_path / "gone")
