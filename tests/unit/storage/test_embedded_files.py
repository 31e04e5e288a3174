"""Which harm to the server's files is found without a server, and that a run that failed is undone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.storage.embedded_files import Fault, ServerFiles

TABLE = (120897).to_bytes(4, "little") + bytes(4092)
TABLES = ("WiredTiger.wt", "WiredTigerHS.wt", "things.wt")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in TABLES:
        (folder / name).write_bytes(TABLE)
    for name in ("WiredTiger", "WiredTiger.turtle", "WiredTigerLog.0000000001"):
        (folder / name).write_bytes(b"content")
    return folder


@pytest.fixture
def files(data: Path) -> ServerFiles:
    return ServerFiles(data, data.parent / "FILES")


def everything(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_whole_files_have_no_fault_running_or_stopped(files: ServerFiles) -> None:
    files.note_stopped()
    assert files.find_fault() is None
    files.note_running()
    assert files.find_fault() is None


def test_growth_while_running_is_no_fault(files: ServerFiles, data: Path) -> None:
    files.note_running()
    (data / "things.wt").write_bytes(TABLE * 3)
    (data / "new.wt").write_bytes(TABLE)
    (data / "WiredTigerLog.0000000001").rename(data / "WiredTigerLog.0000000002")
    assert files.find_fault() is None


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(TABLE[:2048]),
        lambda file: file.write_bytes(bytes(4096)),
    ],
    ids=["missing", "empty", "short", "zeroed"],
)
@pytest.mark.parametrize("name", TABLES)
def test_a_harmed_table_is_found_also_after_an_end_out_of_order(
    files: ServerFiles, data: Path, name: str, harm: Callable[[Path], object]
) -> None:
    files.note_running()
    harm(data / name)
    fault = files.find_fault()
    assert fault is not None
    assert fault.file == data / name


@pytest.mark.parametrize("name", [*TABLES, "WiredTigerLog.0000000001"])
def test_another_size_after_a_stop_in_order_is_found(files: ServerFiles, data: Path, name: str) -> None:
    files.note_stopped()
    with (data / name).open("ab") as stream:
        stream.write(b"x")
    fault = files.find_fault()
    assert isinstance(fault, Fault)
    assert fault.file == data / name
    assert "bytes where" in fault.what


def test_a_log_that_is_gone_is_found(files: ServerFiles, data: Path) -> None:
    files.note_running()
    (data / "WiredTigerLog.0000000001").unlink()
    fault = files.find_fault()
    assert fault is not None
    assert "WiredTigerLog" in fault.file.name


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"files": 3}', '{"files": {"a": "b"}}'])
def test_a_record_that_cannot_be_read_is_found(files: ServerFiles, data: Path, text: str | None) -> None:
    if text is not None:
        (data.parent / "FILES").write_text(text)
    fault = files.find_fault()
    assert fault is not None
    assert fault.file == data.parent / "FILES"


def test_a_run_that_failed_is_undone(files: ServerFiles, data: Path) -> None:
    files.note_stopped()
    before = everything(data.parent)
    snapshot = files.begin_run()
    (data / "WiredTigerLog.0000000002").write_bytes(b"new")
    (data / "WiredTiger.turtle").write_bytes(b"changed")
    os.truncate(data / "WiredTiger.wt", 10)
    files.undo_run(snapshot)
    assert everything(data.parent) == before
