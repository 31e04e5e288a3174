"""The embedded server's own files: whether they are whole, and that a start that failed leaves them as they were.

WiredTiger checks blocks when it reads them. It does not miss a log that is gone, or a table that it has not opened
yet, and would serve what is left as if that were all: so the files are written down while we know them.
Everything here blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.storage.durable_files import replace_file

_ALWAYS = ("WiredTiger", "WiredTiger.turtle", "WiredTiger.wt", "WiredTigerHS.wt")
_CHANGED_BY_OPENING = ("WiredTiger.turtle", "WiredTiger.wt")
_BLOCK_BYTES = 4096
_MAGIC = (120897).to_bytes(4, "little")  # WiredTiger's WT_BLOCK_MAGIC, at the start of each of its files


@dataclass(frozen=True, slots=True)
class Fault:
    file: Path
    what: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What opening may change before it fails; the tables themselves are written only once it has succeeded."""

    names: frozenset[str]
    contents: Mapping[str, bytes]
    record: bytes


class ServerFiles:
    """`record` is where the names are written down: with their sizes after a stop in order, else without."""

    def __init__(self, data: Path, record: Path) -> None:
        self._data = data
        self._record = record

    def find_fault(self) -> Fault | None:
        """The first thing that is wrong; reads only."""
        recorded = self._read_record()
        if isinstance(recorded, Fault):
            return recorded
        for name in sorted({*_ALWAYS, *recorded}):
            fault = _find_fault(self._data / name, recorded.get(name))
            if fault is not None:
                return fault
        if not any(self._data.glob("WiredTigerLog.*")):
            return Fault(self._data / "WiredTigerLog.*", "is missing: what was written last is in the log")
        return None

    def _read_record(self) -> dict[str, int | None] | Fault:
        try:
            files = json.loads(self._record.read_bytes())["files"]
            return {str(name): None if size is None else int(size) for name, size in files.items()}
        except FileNotFoundError:
            return Fault(self._record, "is missing")
        except (ValueError, KeyError, TypeError, AttributeError):
            return Fault(self._record, "cannot be read")

    def begin_run(self) -> Snapshot:
        """From here on sizes may change."""
        snapshot = Snapshot(
            names=frozenset(file.name for file in self._data.iterdir()),
            contents={name: (self._data / name).read_bytes() for name in _CHANGED_BY_OPENING},
            record=self._record.read_bytes(),
        )
        self.note_running()
        return snapshot

    def undo_run(self, snapshot: Snapshot) -> None:
        """The server could not open its files: they are as before."""
        for file in self._data.iterdir():
            if file.name not in snapshot.names:
                file.unlink()
        for name, content in snapshot.contents.items():
            if (self._data / name).read_bytes() != content:
                replace_file(self._data / name, content)
        self.leave_run(snapshot)

    def leave_run(self, snapshot: Snapshot) -> None:
        """The server did not get at its files, as another one has them: what changes in them is that one's."""
        replace_file(self._record, snapshot.record)

    def note_running(self) -> None:
        self._write_record({file.name: None for file in self._data.glob("*.wt")})

    def note_stopped(self) -> None:
        """After a stop in order: no size changes until the next start."""
        names = [
            file for file in self._data.iterdir() if file.suffix == ".wt" or file.name.startswith("WiredTigerLog.")
        ]
        self._write_record({file.name: file.stat().st_size for file in names})

    def _write_record(self, files: Mapping[str, int | None]) -> None:
        replace_file(self._record, (json.dumps({"files": files}, indent=1, sort_keys=True) + "\n").encode())


def _find_fault(file: Path, recorded_size: int | None) -> Fault | None:
    if not file.is_file():
        return Fault(file, "is missing")
    size = file.stat().st_size
    if size == 0:
        return Fault(file, "is empty")
    if recorded_size is not None and size != recorded_size:
        return Fault(file, f"has {size} bytes where {recorded_size} were written")
    if file.suffix != ".wt":
        return None
    with file.open("rb") as stream:
        start = stream.read(len(_MAGIC))
    if size < _BLOCK_BYTES or start != _MAGIC:
        return Fault(file, "does not begin as a table does")
    return None
