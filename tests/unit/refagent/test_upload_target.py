from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from controlplane.refagent.faults import AgentFault
from controlplane.refagent.upload_target import UploadFile, parse_path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    files, staging = tmp_path / "files", tmp_path / "staging"
    files.mkdir()
    staging.mkdir()
    return files, staging


@pytest.mark.parametrize("path", ["a", "a/b", "a b/c.jar", ".hidden", "...", "größe/日本", "x" * 255])
def test_a_plain_relative_path_is_split(path: str) -> None:
    assert "/".join(parse_path(path)) == path


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/.", "a\\b", "a\0", "\ud800", " a", "x" * 256, "é" * 128])
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(AgentFault) as refused:
        parse_path(path)
    assert refused.value.status == 422


def test_the_target_appears_only_when_it_is_whole(folders: tuple[Path, Path]) -> None:
    files, staging = folders
    upload = UploadFile.create(files, staging, ("a", "b"), 0)
    upload.write(b"half")
    assert not (files / "a" / "b").exists()
    assert len(list(staging.iterdir())) == 1
    upload.commit()
    upload.close()
    assert (files / "a" / "b").read_bytes() == b"half"
    assert list(staging.iterdir()) == []


def test_an_upload_that_is_closed_early_leaves_nothing(folders: tuple[Path, Path]) -> None:
    files, staging = folders
    (files / "b").write_text("old")
    upload = UploadFile.create(files, staging, ("b",), 0)
    upload.write(b"new")
    upload.close()
    upload.close()
    assert (files / "b").read_text() == "old"
    assert list(staging.iterdir()) == []


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere_else(folders: tuple[Path, Path], tmp_path: Path) -> None:
    files, staging = folders
    outside = tmp_path / "outside"
    outside.mkdir()
    (files / "mods").mkdir()
    upload = UploadFile.create(files, staging, ("mods", "x"), 0)
    (files / "mods").rename(files / "moved")
    (files / "mods").symlink_to(outside)
    upload.write(b"data")
    upload.commit()
    upload.close()
    assert list(outside.iterdir()) == []
    assert (files / "moved" / "x").read_bytes() == b"data"


def test_more_than_the_disk_holds_is_refused_before_anything_is_made(folders: tuple[Path, Path]) -> None:
    files, staging = folders
    with pytest.raises(AgentFault) as refused:
        UploadFile.create(files, staging, ("a", "b"), 1 << 60)
    assert refused.value.status == 507
    assert list(files.iterdir()) == []


def held_below(folder: Path) -> list[str]:
    """What this process has open there. Other threads open and close files elsewhere meanwhile."""
    held = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            held.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in held if path.startswith(str(folder))]


def test_no_descriptor_is_lost_in_a_refusal(folders: tuple[Path, Path], tmp_path: Path) -> None:
    files, staging = folders
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (files / "link").symlink_to(elsewhere)
    for parts in (("link",), ("link", "x"), ("a", "b", "link" * 100)):
        with pytest.raises(AgentFault):
            UploadFile.create(files, staging, parts, 0)
    assert held_below(tmp_path) == []
