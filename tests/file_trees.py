"""Looking at a folder while another process works in it.

`Path.rglob` followed by `stat` raises when a file goes between the two, which is what a test that waits for
files to go looks out for.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sizes_below(folder: Path) -> dict[Path, int]:
    """Every file below `folder`, by its path from there, with its size in bytes. What goes meanwhile is not in it."""
    sizes = {}
    for parent, _folders, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                sizes[path.relative_to(folder)] = path.lstat().st_size
    return sizes
