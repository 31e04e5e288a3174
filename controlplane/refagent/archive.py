"""Archives of the server's files: made, checked and unpacked. Blocking, so the agent runs this file as a program:

    python -m controlplane.refagent.archive create FOLDER ARCHIVE
    python -m controlplane.refagent.archive extract ARCHIVE FOLDER CHECKSUM

One JSON object on standard output tells the result; a refusal exits with status 3 and `{"code", "message"}`.

An archive is not trusted, not even our own: it has lain on a disk that the supervised process can write to. A member
is refused when it is absolute, climbs out, is no file, folder or link, links outside, comes twice, or lies below a
link: so nothing is ever written through a link.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

REFUSED_STATUS = 3
COMPRESSION = 1  # a customer's CPU costs more than a tenth of the disk
MEMBER_LIMIT = 1_000_000
RESERVE_BYTES = 64 << 20
WARNING_LIMIT = 20
PADDING_BYTES = 1 << 20  # tar pads to its record, ten kilobytes unless it was told otherwise
BLOCK_BYTES = 1 << 20


class Refused(Exception):
    """The archive cannot be made or used; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Hashed:
    """A file that is written to, with the SHA-256 of what went in."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._target.write(data)

    def flush(self) -> None:
        self._target.flush()


class _Padded:
    """A file that is read to the size it had at first: one that shrinks meanwhile goes on as zeros, as GNU tar does."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.short = False

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            self.short = True
            data += bytes(size - len(data))
        return data


class _Warnings:
    """What was left out, for a person to read; bounded."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        if len(self.texts) < WARNING_LIMIT:
            self.texts.append(text)
        else:
            self._more += 1

    def all(self) -> list[str]:
        return [*self.texts, f"and {self._more} more"] if self._more else self.texts


def create(folder: Path, archive: Path) -> dict[str, Any]:
    """Pack `folder` into the new gzipped tar `archive`, synced to the disk."""
    warnings = _Warnings()
    members = 0
    with archive.open("xb") as raw:
        hashed = _Hashed(raw)
        with (
            gzip.GzipFile(fileobj=hashed, mode="wb", compresslevel=COMPRESSION, filename="", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path, name in _walk(folder):
                members += _add(tar, path, name, warnings)
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps each for reading later
        raw.flush()
        os.fsync(raw.fileno())
    return {
        "sizeBytes": hashed.size,
        "checksum": f"sha256:{hashed.digest.hexdigest()}",
        "members": members,
        "warnings": warnings.all(),
    }


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Path and name in the archive of everything below `folder`; links are not followed."""
    waiting = [(str(folder), "")]
    while waiting:
        parent, prefix = waiting.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(parent) as found:
            for entry in sorted(found, key=lambda one: one.name):
                name = prefix + entry.name
                yield entry.path, name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, name + "/"))


def _add(tar: tarfile.TarFile, path: str, name: str, warnings: _Warnings) -> int:
    """Add one entry; 1 when it went in. What vanishes meanwhile was not there."""
    try:
        kind = os.lstat(path).st_mode
        if stat.S_ISREG(kind):
            return _add_file(tar, path, name, warnings)
        if not (stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
            warnings.add(f"{name}: neither file nor folder nor link; left out")
            return 0
        member = tar.gettarinfo(path, name)
    except FileNotFoundError:
        return 0
    if member.issym() and not link_stays_inside(name, member.linkname):
        warnings.add(f"{name}: a link that leads out of the server's files; left out")
        return 0
    tar.addfile(member)
    return 1


def _add_file(tar: tarfile.TarFile, path: str, name: str, warnings: _Warnings) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as source:
        member = tar.gettarinfo(arcname=name, fileobj=source)
        if not member.isfile() and not member.islnk():
            return 0  # replaced by something else since it was listed
        padded = _Padded(source)
        tar.addfile(member, padded if member.isreg() else None)  # type: ignore[arg-type]
        if padded.short:
            warnings.add(f"{name}: shrank while it was read; filled up with zeros")
    return 1


def link_stays_inside(name: str, target: str) -> bool:
    """Whether a symbolic link at `name` with this target stays below the root, whatever else is a link there.

    `..` may only lead, since `a/..` is not where it looks when `a` is a link itself.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return not target.startswith("/") and ".." not in parts[climbs:] and climbs <= name.count("/")


def extract(archive: Path, folder: Path, checksum: str) -> dict[str, Any]:
    """Unpack into `folder`, which is made. Raises Refused; the caller removes what was unpacked until then."""
    try:
        with archive.open("rb") as raw:
            _verify(raw, checksum)
            raw.seek(0)
            folder.mkdir()
            with gzip.open(raw) as packed, tarfile.open(fileobj=packed, mode="r:") as tar:
                members = _unpack(tar, folder)
                _check_end(packed)
                return {"members": members}
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused("backup_damaged", f"The archive cannot be read: {error}.") from error


def _verify(raw: IO[bytes], checksum: str) -> None:
    digest = hashlib.sha256()
    while block := raw.read(BLOCK_BYTES):
        digest.update(block)
    if f"sha256:{digest.hexdigest()}" != checksum:
        raise Refused("backup_damaged", "The archive's checksum is not the one that was noted when it was made.")


def _check_end(packed: gzip.GzipFile) -> None:
    """Behind the last member there is padding, and then gzip's own sum: an archive that was cut off there lacks it."""
    packed.read(PADDING_BYTES)
    if packed.read(1):
        raise Refused("backup_damaged", "The archive goes on behind its end.")


def _unpack(tar: tarfile.TarFile, folder: Path) -> int:
    checker = MemberChecker()
    free = shutil.disk_usage(folder).free - RESERVE_BYTES
    # Python's own filter (PEP 706) as a second line, where this Python has it.
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    count = 0
    for member in tar:
        count += 1
        wrong = checker.what_is_wrong(member)
        if wrong or count > MEMBER_LIMIT:
            raise Refused("archive_refused", f"{member.name[:200]!r}: {wrong or 'too many members'}.")
        free -= member.size
        if free < 0:
            raise Refused("disk_full", "There is not enough room on the disk to unpack the archive.")
        if member.isdir():
            member.mode |= 0o700  # what comes below must be writable while it is unpacked
        tar.extract(member, folder, **options)
    return count


class MemberChecker:
    """Judges the members of one archive in their order."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._links: set[str] = set()
        self._folders: set[str] = set()

    def what_is_wrong(self, member: tarfile.TarInfo) -> str | None:
        """A reason to refuse the archive, or None."""
        name = member.name.removesuffix("/")
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts) or "\0" in name:
            return "the name is not plainly relative"
        if name in self._files or name in self._links or (name in self._folders and not member.isdir()):
            return "it comes twice"
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if any(folder in self._links or folder in self._files for folder in above):
            return "it lies below something that is no folder"
        self._folders.update(above)
        return self._what_is_wrong_with_kind(member, name)

    def _what_is_wrong_with_kind(self, member: tarfile.TarInfo, name: str) -> str | None:
        if member.isdir():
            self._folders.add(name)
            return None
        if member.isreg():
            self._files.add(name)
            return None
        if member.issym():
            self._links.add(name)
            return None if link_stays_inside(name, member.linkname) else "it links out of the archive"
        if member.islnk():
            known = member.linkname in self._files
            self._files.add(name)
            return None if known else "it is a hard link to what is no file of the archive"
        return "it is neither file nor folder nor link"


def main(arguments: list[str]) -> int:
    try:
        if arguments[0] == "create":
            result = create(Path(arguments[1]), Path(arguments[2]))
        else:
            result = extract(Path(arguments[1]), Path(arguments[2]), arguments[3])
    except (Refused, OSError) as error:
        print(json.dumps(_told(error)))  # noqa: T201
        return REFUSED_STATUS
    print(json.dumps(result))  # noqa: T201
    return 0


def _told(error: Refused | OSError) -> dict[str, str]:
    if isinstance(error, Refused):
        return {"code": error.code, "message": error.message}
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"code": "disk_full", "message": "There is not enough room on the disk."}
    return {"code": "archive_failed", "message": f"{error.strerror or error}: {error.filename}"}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent decides, not the terminal
    sys.exit(main(sys.argv[1:]))
