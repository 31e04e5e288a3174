"""Where an upload may land, and the file that it becomes. Blocking: runs in a worker thread.

The path is walked with directory descriptors, each step O_NOFOLLOW: no link is ever followed, whatever the running
process does to the tree meanwhile (openat(2)). The body goes to a temporary file outside the server's files, so that
the server never meets half a file, and is renamed into place when it is whole and on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from controlplane.refagent.faults import AgentFault, conflict

PATH_LIMIT_BYTES = 1024
DEPTH_LIMIT = 32
NAME_LIMIT_BYTES = 255  # NAME_MAX of the usual file systems
RESERVE_BYTES = 64 << 20  # an upload never takes the last of the disk
CHECK_EVERY_BYTES = 64 << 20

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def parse_path(path: str) -> tuple[str, ...]:
    """The components of a relative path. Raises AgentFault 422 for whatever is not plainly one."""
    parts = tuple(path.split("/"))
    wrong = _what_is_wrong(path, parts)
    if wrong:
        raise AgentFault(422, "path_refused", f"The path is refused: {wrong}.")
    return parts


def _what_is_wrong(path: str, parts: tuple[str, ...]) -> str | None:
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if not path.isprintable() or "\\" in path:
        return "control characters and backslashes are not allowed"
    if path.startswith("/"):
        return "it must be relative to the server's files"
    if any(part in ("", ".", "..") for part in parts):
        return "no component may be empty, . or .."
    if any(part != part.strip() for part in parts):
        return "no name may begin or end with a space"
    if len(parts) > DEPTH_LIMIT or sum(map(len, encoded)) > PATH_LIMIT_BYTES:
        return f"it is deeper than {DEPTH_LIMIT} folders or longer than {PATH_LIMIT_BYTES} bytes"
    if any(len(part) > NAME_LIMIT_BYTES for part in encoded):
        return f"a name is longer than {NAME_LIMIT_BYTES} bytes"
    return None


class UploadFile:
    """One upload on its way to the disk. `close` is safe to call at any time and leaves no half file."""

    def __init__(self, parent: int, holder: int, name: str, temporary: str, mode: int | None) -> None:
        self._parent = parent
        self._holder = holder
        self._name = name
        self._temporary = temporary
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(temporary, flags, 0o666, dir_fd=holder)
        self._exists = True
        self._closed = False
        self.size = 0
        self._checked_at = 0
        if mode is not None:
            os.fchmod(self._file, mode)  # a script that is replaced stays executable

    @classmethod
    def create(cls, root: Path, staging: Path, parts: tuple[str, ...], expected_bytes: int) -> UploadFile:
        """Make missing folders and the temporary file. Raises AgentFault: 403 and 409 for what is in the way, 507."""
        with translated(), contextlib.ExitStack() as undo:
            _check_space(root, expected_bytes)
            parent = _open_parent(root, parts[:-1])
            undo.callback(os.close, parent)
            mode = _mode_of_replaced(parent, parts[-1])
            holder = os.open(staging, _FOLDER)
            undo.callback(os.close, holder)
            if os.fstat(holder).st_dev != os.fstat(parent).st_dev:  # another mount: rename(2) does not cross it
                os.dup2(parent, holder, inheritable=False)
            upload = cls(parent, holder, parts[-1], f".upload-{secrets.token_hex(8)}.partial", mode)
            undo.pop_all()
            return upload

    def write(self, chunk: bytes) -> None:
        """Raises AgentFault 507 when the disk is nearly full."""
        with translated():
            if self.size - self._checked_at >= CHECK_EVERY_BYTES:
                self._checked_at = self.size
                _check_space(self._file, 0)
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._file, view) :]
            self.size += len(chunk)

    def commit(self) -> None:
        """Whole and on the disk: put it in its place, atomically."""
        with translated():
            os.fsync(self._file)
            os.rename(self._temporary, self._name, src_dir_fd=self._holder, dst_dir_fd=self._parent)
            self._exists = False
            os.fsync(self._parent)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._exists:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._holder)
        for descriptor in (self._file, self._holder, self._parent):
            os.close(descriptor)


def _open_parent(root: Path, folders: tuple[str, ...]) -> int:
    current = os.open(root, _FOLDER)
    for name in folders:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=current)
            following = os.open(name, _FOLDER, dir_fd=current)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                _refuse_in_the_way(current, name)
            raise
        finally:
            os.close(current)
        current = following
    return current


def _refuse_in_the_way(folder: int, name: str) -> None:
    if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        raise AgentFault(403, "path_refused", f"{name!r} is a symbolic link: uploads follow none.")
    raise conflict("not_a_folder", f"{name!r} is not a folder.")


def _mode_of_replaced(parent: int, name: str) -> int | None:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise AgentFault(403, "path_refused", f"{name!r} is a symbolic link: uploads follow none.")
    if not stat.S_ISREG(found.st_mode):
        raise conflict("not_a_file", f"{name!r} exists and is not a file.")
    return stat.S_IMODE(found.st_mode) & 0o777


def _check_space(place: Path | int, needed_bytes: int) -> None:
    system = os.statvfs(place)
    if system.f_bavail * system.f_frsize < needed_bytes + RESERVE_BYTES:
        raise AgentFault(507, "disk_full", "There is not enough room on the disk.")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """File errors as refusals."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AgentFault(507, "disk_full", "There is not enough room on the disk.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise AgentFault(403, "path_refused", "The agent may not write there.") from error
        if error.errno == errno.ENAMETOOLONG:
            raise AgentFault(422, "path_refused", "The path is refused: a name is too long.") from error
        if error.errno in (errno.ENOENT, errno.EISDIR):
            raise conflict("path_changed", "The folder was changed while the upload was under way.") from error
        raise
