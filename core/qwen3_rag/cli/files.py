"""Atomic writes, and a lock that ends with its process."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from qwen3_rag.errors import ConfigurationError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


_DISK_FULL: Final = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""No space left, file too large, quota exceeded: errors of writing, which carry no path."""


@contextlib.contextmanager
def add_path_if_disk_full(path: Path) -> Iterator[None]:
    """Add the path to an error of a full disk: those of an open file have none."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name, force it to disk, then give it its name.

    `path` is a complete file whenever it exists, also after a power cut.
    """
    temporary = path.with_name(path.name + ".tmp")
    with add_path_if_disk_full(temporary), temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Rename a file that is already on disk, replacing what was there, and force the name to disk."""
    os.replace(temporary, path)
    if sys.platform != "win32":  # Windows cannot open folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def force_to_disk(path: Path) -> None:
    """Force a file that was written and closed to disk."""
    with add_path_if_disk_full(path), path.open("rb+") as file:
        os.fsync(file.fileno())


class FolderLock:
    """A folder's lock, held by one process at a time. The system releases it however that process ends.

    Raises:
        ConfigurationError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file = self._path.open("ab")
        try:
            if sys.platform == "win32":
                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ConfigurationError(f"another process is working in {folder}") from error

        if not self._path.exists():  # its last holder has just removed it and the folder
            self._file.close()
            raise ConfigurationError(f"another process was working in {folder}; try again")

    def remove(self) -> None:
        """Remove the lock's file while holding it."""
        if sys.platform != "win32":  # Windows removes no open file; there it stays, and is harmless
            self._path.unlink(missing_ok=True)

    def release(self) -> None:
        self._file.close()
