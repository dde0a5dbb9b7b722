"""What `embed` writes is whole on disk before it gets its name: a power cut leaves no half of a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from command import Invoke
from embedding_job import SMALL
from qwen3_rag.cli.files import write_atomically


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot open folders to force names to disk")
@pytest.mark.parametrize("ending", [".npy", ".jsonl", ".parquet"])
def test_files_are_forced_to_disk_before_they_get_their_names_and_names_after(
    invoke: Invoke,
    lines: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_disk: dict[int, int] = {}  # of files and folders, by their numbers: the size
    folders: list[int] = []
    named: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        state = os.fstat(descriptor)
        on_disk[state.st_ino] = state.st_size

    def noted_replace(source: Path, target: Path) -> None:
        state = os.stat(source)
        assert on_disk.get(state.st_ino) == state.st_size, f"{source} is not whole on disk"
        folder = os.stat(target.parent).st_ino
        on_disk.pop(folder, None)
        folders.append(folder)
        named.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    run = invoke("embed", lines, tmp_path / f"v{ending}", "--model", embedding_checkpoint, *SMALL)
    assert run.code == 0, run.err
    assert named == ["manifest.json", *(f"{number:08d}.npz" for number in range(4)), f"v{ending}"]
    assert all(folder in on_disk for folder in folders)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def lowest_free() -> int:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        os.close(descriptor)
        return descriptor

    before = lowest_free()
    for number in range(50):
        write_atomically(tmp_path / f"{number}", lambda file: file.write(b"x"))
    assert lowest_free() < before + 50


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_part_that_finds_the_disk_full_is_named(tmp_path: Path) -> None:
    (tmp_path / "part.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"Errno 28.*part\.tmp"):
        write_atomically(tmp_path / "part", lambda file: file.write(b"x"))


def test_a_part_that_cannot_be_written_for_another_reason_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "part.tmp").mkdir()
    with pytest.raises(OSError, match=r"part\.tmp"):
        write_atomically(tmp_path / "part", lambda file: file.write(b"x"))
    assert not (tmp_path / "part").exists()
