"""Which version of its files a folder holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def file_versions(folder: Path, patterns: Iterable[str]) -> tuple[tuple[str, int, int, int], ...]:
    """Return name, time, size and inode of each of a folder's files: others once one is changed or replaced."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    stamps = [(path.relative_to(folder).as_posix(), path.stat()) for path in sorted(found)]
    return tuple((name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in stamps)
