"""Small files that are on disk when the call returns, whole or not at all. Everything here blocks."""

from __future__ import annotations

import os
from pathlib import Path


def write_new_file(file: Path, content: bytes) -> None:
    """Readable by our user alone. Raises FileExistsError."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(file: Path, content: bytes) -> None:
    """By a rename, so that who reads sees the former or the new content, also after a loss of power."""
    temporary = file.with_name(file.name + ".new")
    temporary.unlink(missing_ok=True)
    write_new_file(temporary, content)
    temporary.rename(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
