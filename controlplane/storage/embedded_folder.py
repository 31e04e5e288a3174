"""The folder of the embedded server on disk: its lock, its marker, its password. Everything here blocks.

    FOLDER/lock                held (flock(2)) as long as a control plane uses the folder
    FOLDER/store/FORMAT        what wrote it; a newer format is refused
    FOLDER/store/password      of the server's only user, mode 0600
    FOLDER/store/server.toml   empty: else the server would look for settings in the working directory
    FOLDER/store/FILES         the names of the server's files, with their sizes after a stop in order
    FOLDER/store/data/         the server's own files
    FOLDER/first-start/        a store that is being made; it becomes `store` by one rename, or is thrown away

Looking at a folder changes nothing in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from controlplane.errors import StorageDamaged, StorageError, StorageLocked, StorageTooNew
from controlplane.storage.durable_files import sync_folder, write_new_file
from controlplane.storage.embedded_files import ServerFiles

FORMAT_VERSION = 1
_FRESH = frozenset({"lock", "first-start"})


@dataclass(frozen=True, slots=True)
class Store:
    """Where one store's parts are, in `store` or, while it is made, in `first-start`."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def settings_file(self) -> Path:
        return self.root / "server.toml"

    @property
    def format_file(self) -> Path:
        return self.root / "FORMAT"

    @property
    def password_file(self) -> Path:
        return self.root / "password"

    @property
    def files(self) -> ServerFiles:
        return ServerFiles(self.data, self.root / "FILES")

    def read_password(self) -> str:
        return self.password_file.read_text().strip()


class EmbeddedFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(path / "store")
        self._lock: int | None = None

    def acquire(self) -> bool:
        """Check and lock the folder. True when it holds a store, False when one must be made first.

        Raises StorageLocked, StorageDamaged, StorageTooNew or StorageError, each naming the folder or the file.
        """
        try:
            return self._lock_and_inspect()
        except OSError as error:
            self.release()
            raise StorageError(f"The storage folder {self.path} cannot be used: {error}.") from error
        except StorageError:
            self.release()
            raise

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _lock_and_inspect(self) -> bool:
        """The lock comes first where there is one: the files of a store in use change, and may look damaged."""
        if (self.path / "lock").exists():
            self._take_lock()
            return self._inspect()
        self._inspect()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        return self._inspect()

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageLocked(f"The storage folder {self.path} is in use by another control plane.") from error

    def _inspect(self) -> bool:
        if not self.path.exists():
            return False
        names = {entry.name for entry in self.path.iterdir()}
        if "store" not in names:
            foreign = sorted(names - _FRESH)
            if foreign:
                raise StorageDamaged(
                    f"The storage folder {self.path} holds {foreign[0]!r} but no store: it is not one of ours, or the "
                    "store was moved away. Nothing was changed."
                )
            return False
        self._check_format()
        self._check_password()
        fault = self.store.files.find_fault()
        if fault is not None:
            raise self._damaged(fault.file, fault.what)
        return True

    def _check_format(self) -> None:
        self._require_content(self.store.format_file)
        try:
            version = json.loads(self.store.format_file.read_text())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(self.store.format_file, "cannot be read") from error
        if not isinstance(version, int) or version < 1:
            raise self._damaged(self.store.format_file, "cannot be read")
        if version > FORMAT_VERSION:
            raise StorageTooNew(
                f"The storage folder {self.path} was written by a newer control plane: its format has version "
                f"{version}, this program knows versions up to {FORMAT_VERSION}. Nothing was changed."
            )

    def _check_password(self) -> None:
        self._require_content(self.store.password_file)
        mode = stat.S_IMODE(self.store.password_file.stat().st_mode)
        if mode & 0o077:
            raise StorageError(
                f"{self.store.password_file} may be read by others (mode {mode:o}): chmod 600 is needed."
            )

    def _require_content(self, file: Path) -> None:
        if not file.is_file():
            raise self._damaged(file, "is missing")
        if file.stat().st_size == 0:
            raise self._damaged(file, "is empty")

    def _damaged(self, file: Path, what: str) -> StorageDamaged:
        return StorageDamaged(
            f"The storage folder {self.path} is damaged: {file} {what}. Nothing was changed; restore a backup."
        )

    # -- making a store ----------------------------------------------------------------------------------------------

    def begin_store(self) -> Store:
        """An empty store under another name. What a start that was interrupted left there goes: it was never used."""
        store = Store(self.path / "first-start")
        shutil.rmtree(store.root, ignore_errors=True)
        store.root.mkdir(mode=0o700)
        store.data.mkdir(mode=0o700)
        write_new_file(store.settings_file, b"")
        write_new_file(store.password_file, f"{secrets.token_urlsafe(32)}\n".encode())
        write_new_file(store.format_file, (json.dumps({"format": FORMAT_VERSION}) + "\n").encode())
        return store

    def finish_store(self, store: Store) -> None:
        """From here on the folder holds a store, also after a loss of power."""
        store.files.note_stopped()
        sync_folder(store.data)
        sync_folder(store.root)
        store.root.rename(self.store.root)
        sync_folder(self.path)
