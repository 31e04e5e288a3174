"""A folder of the control plane's host whose files are put into new containers: an agent, its start script."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from controlplane.errors import ProviderRefused

MAX_FILES = 256
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class SeedFile:
    """`path` is absolute in the container, `mode` the permission bits."""

    path: str
    mode: int
    content: bytes = field(repr=False)


def read_seed(folder: Path) -> list[SeedFile]:
    """Every file below the folder, in order of its path. Reads the disk: call it in an executor.

    Raises ProviderRefused, for an operator, where the folder cannot be read, is too large or has links in it.
    """
    files: list[SeedFile] = []
    total = 0
    if not folder.is_dir():
        raise _refused(folder, "it is not there")
    try:
        for entry in sorted(folder.rglob("*")):
            if entry.is_symlink():
                raise _refused(folder, f"{entry.name} is a link")
            if not entry.is_file():
                continue
            status = entry.stat()
            total += status.st_size
            if total > MAX_BYTES or len(files) == MAX_FILES:
                raise _refused(folder, f"more than {MAX_FILES} files or {MAX_BYTES} bytes")
            path = "/" + entry.relative_to(folder).as_posix()
            files.append(SeedFile(path, status.st_mode & 0o777, entry.read_bytes()))
    except OSError as error:
        raise _refused(folder, error.strerror or str(error)) from error
    return files


def _refused(folder: Path, reason: str) -> ProviderRefused:
    return ProviderRefused("The instance could not be made.", operator_message=f"the seed folder {folder}: {reason}")
