"""The page's files, read into memory once before the server listens: a request never touches the disk.

Only what lies in the folder then, and has a name of a known kind, can be asked for; there is no path to traverse.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.errors import ConfigurationError

STATIC_FOLDER = Path(__file__).resolve().parent.parent / "static"
"""Beside the packages in a checkout, in an installation, and in the folder that a one-file binary unpacks to."""

TOTAL_LIMIT_BYTES = 16 << 20
GZIP_FROM_BYTES = 1024
_CONTENT_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
"""By the suffix of the name. What has no suffix is a licence or a list of versions; nothing else is served."""

_PLAIN_NAMES = ("LICENSE", "VERSIONS")


@dataclass(frozen=True, slots=True)
class Asset:
    """`compressed` is the body as gzip, where that is worth it. The tags tell the two encodings apart."""

    content_type: str
    body: bytes
    etag: str
    compressed: bytes | None

    @property
    def compressed_etag(self) -> str:
        return f'{self.etag[:-1]}-gzip"'


def load_assets(folder: Path = STATIC_FOLDER) -> dict[str, Asset]:
    """By path below `folder`, with slashes. Raises ConfigurationError where there is no page in it."""
    assets: dict[str, Asset] = {}
    total = 0
    for file in sorted(folder.rglob("*")):
        content_type = _content_type(file)
        if content_type is None or file.is_symlink() or not file.is_file():
            continue
        body = file.read_bytes()
        total += len(body)
        if total > TOTAL_LIMIT_BYTES:
            raise ConfigurationError("static", f"{folder} holds more than {TOTAL_LIMIT_BYTES} bytes")
        assets[file.relative_to(folder).as_posix()] = _asset(content_type, body)
    if "index.html" not in assets:
        raise ConfigurationError("static", f"there is no index.html in {folder}")
    return assets


def _content_type(file: Path) -> str | None:
    if file.name.partition(".")[0] in _PLAIN_NAMES:
        return _CONTENT_TYPES[""]
    return _CONTENT_TYPES.get(file.suffix) if file.suffix else None


def _asset(content_type: str, body: bytes) -> Asset:
    compressed = gzip.compress(body, mtime=0) if len(body) >= GZIP_FROM_BYTES else None
    if compressed is not None and len(compressed) >= len(body):
        compressed = None
    return Asset(content_type, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', compressed)
