from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from controlplane.refagent.archive import MemberChecker, Refused, _Padded, create, extract, link_stays_inside


@pytest.mark.parametrize(
    ("name", "target", "inside"),
    [
        ("a", "b", True),
        ("a/b", "../c", True),
        ("a/b/c", "../../d", True),
        ("a", "./b", True),
        ("a", ".", True),
        ("a", "..", False),
        ("a/b", "../..", False),
        ("a", "/etc", False),
        ("a", "b/../c", False),
        ("a/b", "../../../etc/passwd", False),
    ],
)
def test_a_link_may_only_lead_to_what_is_inside(name: str, target: str, inside: bool) -> None:
    assert link_stays_inside(name, target) is inside


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.linkname = target
    return made


@pytest.mark.parametrize(
    "members",
    [
        [info("d", tarfile.DIRTYPE), info("d/f"), info("d/l", tarfile.SYMTYPE, "f"), info("h", tarfile.LNKTYPE, "d/f")],
        [info("d/f"), info("d", tarfile.DIRTYPE)],
    ],
)
def test_an_honest_archive_passes(members: list[tarfile.TarInfo]) -> None:
    checker = MemberChecker()
    assert [checker.what_is_wrong(member) for member in members] == [None] * len(members)


@pytest.mark.parametrize(
    "members",
    [
        [info("")],
        [info("a/../b")],
        [info("/a")],
        [info("a//b")],
        [info("f"), info("f")],
        [info("d/f"), info("d", tarfile.SYMTYPE, "x")],
        [info("l", tarfile.SYMTYPE, "d"), info("l/f")],
        [info("f"), info("f/below")],
        [info("l", tarfile.SYMTYPE, "f"), info("h", tarfile.LNKTYPE, "l")],
        [info("c", tarfile.CHRTYPE)],
    ],
)
def test_a_hostile_archive_is_refused_at_its_last_member(members: list[tarfile.TarInfo]) -> None:
    checker = MemberChecker()
    *honest, hostile = [checker.what_is_wrong(member) for member in members]
    assert honest == [None] * len(honest)
    assert hostile


def test_what_is_packed_comes_out_again(tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "empty").mkdir(parents=True)
    (files / "data").write_bytes(os.urandom(100_000))
    (files / "locked").mkdir(mode=0o500)
    notes = create(files, tmp_path / "a.tar.gz")
    extract(tmp_path / "a.tar.gz", tmp_path / "out", notes["checksum"])
    assert (tmp_path / "out" / "data").read_bytes() == (files / "data").read_bytes()
    assert (tmp_path / "out" / "empty").is_dir()
    assert notes["members"] == 3


def test_a_wrong_checksum_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    create(tmp_path / "files", tmp_path / "a.tar.gz")
    with pytest.raises(Refused, match="checksum"):
        extract(tmp_path / "a.tar.gz", tmp_path / "out", "sha256:0")
    assert not (tmp_path / "out").exists()


def test_a_file_that_shrinks_is_filled_up_and_that_is_known() -> None:
    padded = _Padded(io.BytesIO(b"abc"))
    assert padded.read(2) == b"ab"
    assert not padded.short
    assert padded.read(4) == b"c\0\0\0"
    assert padded.short
