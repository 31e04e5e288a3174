"""Backups of the server's files: list, create, restore, delete. One change at a time; long work in a child process.

A backup is `<id>.tar.gz` with `<id>.json` beside it. The notes are written first, so that a backup is complete exactly
when its archive is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from controlplane.refagent.archive import REFUSED_STATUS
from controlplane.refagent.child import die_with_parent
from controlplane.refagent.faults import AgentFault, conflict
from controlplane.refagent.supervisor import Supervisor
from controlplane.refagent.uploads import UploadGate

RESTORING = "restore_in_progress"
NAME_LIMIT = 100
REPLACED = "replaced-"
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
_NICENESS = 10
_STATUS_OF = {"disk_full": 507, "backup_damaged": 409, "archive_refused": 409}

T = TypeVar("T")


class Backups:
    """`new_id` makes an identifier from the current time; all paths are on one file system."""

    def __init__(
        self,
        *,
        files: Path,
        folder: Path,
        staging: Path,
        executor: Executor,
        uploads: UploadGate,
        supervisors: Sequence[Supervisor],
        new_id: Callable[[datetime], str],
    ) -> None:
        self._files = files
        self._folder = folder
        self._staging = staging
        self._executor = executor
        self._uploads = uploads
        self._supervisors = supervisors
        self._new_id = new_id
        self._busy_with: str | None = None
        self._creating: dict[str, Any] | None = None

    async def listed(self) -> list[dict[str, Any]]:
        """Newest first; one that is being made has the state `creating`."""
        found = await self._blocking(lambda: _read_all(self._folder))
        return [self._creating, *found] if self._creating is not None else found

    async def create(self, name: str | None) -> dict[str, Any]:
        """Pack the files as they are now, running or not."""
        with self._only("create"):
            created = datetime.now(UTC)
            backup_id = self._new_id(created)
            notes: dict[str, Any] = {
                "id": backup_id,
                "name": name or f"Backup of {created:%Y-%m-%d %H:%M:%S}",
                "state": "creating",
                "sizeBytes": 0,
                "createdAt": _text(created),
                "completedAt": None,
                "checksum": None,
                "locked": False,
            }
            self._creating = notes
            half = self._staging / f"{backup_id}.tar.gz"
            try:
                result = await self._run("create", self._files, half)
                notes = {**notes, **result, "state": "completed", "completedAt": _text(datetime.now(UTC))}
                await self._blocking(lambda: _keep(self._folder, notes, half))
            finally:
                self._creating = None
                await self._blocking(lambda: half.unlink(missing_ok=True))
            return notes

    async def restore(self, backup_id: str) -> dict[str, Any]:
        """Unpack and check beside the files; then stop what runs, exchange the folders, start again what ran."""
        with self._only("restore"):
            notes = await self._notes(backup_id)
            self._uploads.shut(RESTORING)
            fresh = self._staging / f"restore-{backup_id}"
            replaced = self._staging / f"{REPLACED}{backup_id}"
            try:
                await self._run("extract", self._folder / f"{backup_id}.tar.gz", fresh, notes["checksum"])
                async with contextlib.AsyncExitStack() as stack:
                    for supervisor in self._supervisors:
                        await stack.enter_async_context(supervisor.held(RESTORING))
                    await self._blocking(lambda: _exchange(self._files, fresh, replaced))
            finally:
                self._uploads.open()
                await self._blocking(lambda: _remove(fresh, replaced))
            return notes

    async def delete(self, backup_id: str) -> None:
        with self._only("delete"):
            await self._notes(backup_id)
            await self._blocking(lambda: _delete(self._folder, backup_id))

    @contextlib.contextmanager
    def _only(self, operation: str) -> Iterator[None]:
        if self._busy_with is not None:
            message = f"Another backup operation is under way: {self._busy_with}."
            raise conflict("backup_busy", message, operation=self._busy_with)
        self._busy_with = operation
        try:
            yield
        finally:
            self._busy_with = None

    async def _notes(self, backup_id: str) -> dict[str, Any]:
        notes = await self._blocking(lambda: _read(self._folder, backup_id))
        if notes is None:
            raise AgentFault(404, "backup_not_found", "There is no such backup.")
        return notes

    async def _run(self, *arguments: str | Path) -> dict[str, Any]:
        """Run `archive` as a program of its own. Raises AgentFault with what it refused."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "controlplane.refagent.archive"),
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_behave,
        )
        output, _ = await process.communicate()
        if process.returncode not in (0, REFUSED_STATUS):
            raise AgentFault(500, "archive_failed", f"The archive program ended with status {process.returncode}.")
        told: dict[str, Any] = json.loads(output)
        if process.returncode == REFUSED_STATUS:
            raise AgentFault(_STATUS_OF.get(told["code"], 500), told["code"], told["message"])
        return told

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def recover(files: Path, backups: Path, staging: Path) -> None:
    """At start, before anything else: put back what a restore that was cut short had moved away; empty the staging."""
    if staging.is_dir():
        for moved in staging.glob(f"{REPLACED}*"):
            if not files.exists():
                moved.rename(files)
        shutil.rmtree(staging)
    for folder in (files, backups, staging):
        folder.mkdir(parents=True, exist_ok=True)
    for notes in backups.glob("*.json"):
        if not notes.with_suffix(".tar.gz").exists():
            notes.unlink()


def valid_name(name: object) -> str | None:
    """Raises AgentFault 422."""
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
        raise AgentFault(422, "validation_failed", f"name must be 1 to {NAME_LIMIT} printable characters.")
    return name.strip()


def _behave() -> None:
    die_with_parent(signal.SIGKILL)
    os.nice(_NICENESS)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read_all(folder: Path) -> list[dict[str, Any]]:
    found = (_read(folder, notes.stem) for notes in folder.glob("*.json"))
    return sorted((one for one in found if one is not None), key=lambda one: str(one.get("createdAt")), reverse=True)


def _read(folder: Path, backup_id: str) -> dict[str, Any] | None:
    """The notes of a complete backup; None when there is none of that name."""
    if not _ID.fullmatch(backup_id) or not (folder / f"{backup_id}.tar.gz").is_file():
        return None
    try:
        notes = json.loads((folder / f"{backup_id}.json").read_text())
    except (OSError, ValueError):
        return None
    return notes if isinstance(notes, dict) and isinstance(notes.get("checksum"), str) else None


def _keep(folder: Path, notes: dict[str, Any], archive: Path) -> None:
    fresh = folder / f".{notes['id']}.new"
    with fresh.open("w") as handle:
        json.dump(notes, handle, indent=2)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.rename(folder / f"{notes['id']}.json")
    archive.rename(folder / f"{notes['id']}.tar.gz")
    _sync(folder)


def _delete(folder: Path, backup_id: str) -> None:
    (folder / f"{backup_id}.tar.gz").unlink()
    (folder / f"{backup_id}.json").unlink(missing_ok=True)
    _sync(folder)


def _exchange(files: Path, fresh: Path, replaced: Path) -> None:
    files.rename(replaced)
    try:
        fresh.rename(files)
    except OSError:
        replaced.rename(files)
        raise
    _sync(files.parent)


def _remove(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
