"""The folder `OUTPUT.parts`: the finished parts of a long job, so that a killed job can resume.

A part holds the vectors of a fixed range of rows: part k has rows k * size to (k + 1) * size. It
gets its name only once it is complete and on disk, so a part that exists is done and one that does
not is computed (again); no row can be lost or duplicated. The manifest says which input and which
settings the parts belong to, and is written before the first part.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.cli.files import FolderLock, write_atomically
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.usage import Usage

FORMAT: Final = 1
"""Version of the content of parts; increase it when that changes meaning."""


@dataclass(frozen=True)
class Part:
    """Vectors of a range of rows and what they cost."""

    vectors: NDArray[Any]
    usage: Usage


def parts_folder(output: Path) -> Path:
    """Return the folder of an output's parts."""
    return output.with_name(output.name + ".parts")


class Parts:
    """The parts of one output, locked while this object is open (a context manager).

    Args:
        output: the final file; the folder is beside it.
        restart: throw away what is there.

    Raises:
        ConfigurationError: another process works on the same output.
    """

    def __init__(self, output: Path, *, restart: bool) -> None:
        self.folder = parts_folder(output)
        if not output.parent.is_dir():
            raise ConfigurationError(f"no such folder: {output.parent}")
        self.folder.mkdir(exist_ok=True)
        self._lock = FolderLock(self.folder)
        if restart or not self._manifest.is_file():
            # Without a manifest it is unknown what the parts belong to.
            self._clear()

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._manifest.is_file():  # finished, or stopped before there was anything to keep
            self._clear()
            self._lock.remove()
            with contextlib.suppress(OSError):  # not empty: it holds files that are not ours
                self.folder.rmdir()
        self._lock.release()

    @property
    def assembled(self) -> Path:
        """Where the final file is assembled: on the output's file system, so that renaming is atomic."""
        return self.folder / "assembled.tmp"

    def check(self, expected: dict[str, Any]) -> None:
        """Refuse to resume with parts that belong to another input or other settings.

        Args:
            expected: entries that the manifest must have, if there is a manifest.

        Raises:
            ConfigurationError: naming everything that differs.
        """
        if not self._manifest.is_file():
            return
        differences = self._differences(expected)
        if differences:
            raise ConfigurationError(
                f"{self.folder} holds the unfinished work of another run: {'; '.join(differences)}. "
                "Run it again as it was to go on, or use --restart to throw that work away"
            )

    def are_of(self, expected: dict[str, Any]) -> bool:
        """Whether there is a manifest, and it has these entries."""
        return self._manifest.is_file() and not self._differences(expected)

    def begin(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, unless an earlier run has."""
        if not self._manifest.is_file():
            content = json.dumps(manifest, indent=2).encode()
            write_atomically(self._manifest, lambda file: file.write(content))

    def has(self, number: int) -> bool:
        """Whether a part is done."""
        return self._path(number).is_file()

    def write(self, number: int, part: Part) -> None:
        """Save a part atomically."""
        usage = np.array(astuple(part.usage), dtype=np.int64)
        write_atomically(self._path(number), lambda file: np.savez(file, vectors=part.vectors, usage=usage))

    def read(self, number: int) -> Part:
        """Load a part.

        Raises:
            ConfigurationError: its file is damaged.
        """
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as saved:
                return Part(saved["vectors"], Usage(*map(int, saved["usage"])))
        except Exception as error:  # zipfile, zlib, numpy and the system each raise their own
            raise ConfigurationError(
                f"{path} is damaged ({error}); delete that file and run again to compute it anew"
            ) from error

    def finish(self) -> None:
        """Mark the job as finished: leaving the context then removes the parts."""
        self._manifest.unlink(missing_ok=True)

    def _differences(self, expected: dict[str, Any]) -> list[str]:
        try:
            saved = json.loads(self._manifest.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigurationError(f"{self._manifest} is damaged ({error}); use --restart") from error
        return [
            f"{name} was {saved.get(name)!r} and is now {value!r}"
            for name, value in expected.items()
            if saved.get(name) != value
        ]

    @property
    def _manifest(self) -> Path:
        return self.folder / "manifest.json"

    def _clear(self) -> None:
        """Remove our own files; the manifest first, so that parts left by a crash are never reused."""
        self._manifest.unlink(missing_ok=True)
        for pattern in ("[0-9]*.npz", "*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npz"
