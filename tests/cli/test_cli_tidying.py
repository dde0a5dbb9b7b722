"""After its output is whole `embed` removes its parts, whenever it was killed, and nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Invoke
from embedding_job import SMALL, StoppedError, stop_after


def test_a_finished_output_is_refused_unless_overwrite_is_given(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, texts: list[str]
) -> None:
    output = tmp_path / "v.npy"
    output.write_bytes(b"precious")
    command = ("embed", lines, output, "--model", embedding_checkpoint, *SMALL)
    run = invoke(*command)
    assert run.code == 2
    assert "--overwrite" in run.err
    assert output.read_bytes() == b"precious"
    assert not (tmp_path / "v.npy.parts").exists()
    assert invoke(*command, "--overwrite").code == 0
    assert np.load(output).shape == (len(texts), 32)


@pytest.fixture(params=[".npy", ".jsonl", ".parquet"])
def untidy(
    request: pytest.FixtureRequest,
    invoke: Invoke,
    lines: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Path, tuple[object, ...]]:
    """A whole output whose run was killed before it removed the parts, and the run's command."""
    from qwen3_rag.cli.parts import Parts

    output = tmp_path / f"v{request.param}"
    command = ("embed", lines, output, "--model", embedding_checkpoint, *SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(Parts, "finish", lambda _: (_ for _ in ()).throw(StoppedError))
        with pytest.raises(StoppedError):
            invoke(*command)
    assert output.exists()
    assert parts_of(output)
    stop_after(0, monkeypatch)
    return output, command


def parts_of(output: Path) -> list[str]:
    return sorted(path.name for path in output.with_name(output.name + ".parts").glob("*"))


def test_a_whole_output_whose_parts_were_not_removed_is_recognised(
    invoke: Invoke, untidy: tuple[Path, tuple[object, ...]], texts: list[str]
) -> None:
    output, command = untidy
    before = (output.read_bytes(), output.stat().st_mtime_ns)
    run = invoke(*command, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == len(texts)
    assert (output.read_bytes(), output.stat().st_mtime_ns) == before
    assert not output.with_name(output.name + ".parts").exists()
    assert "is there already" in invoke(*command).err


@pytest.mark.parametrize("untidy", [".npy"], indirect=True)
@pytest.mark.parametrize("other", ["output", "settings", "part", "restart"])
def test_parts_beside_an_output_that_is_not_theirs_are_kept(
    invoke: Invoke, untidy: tuple[Path, tuple[object, ...]], other: str
) -> None:
    output, command = untidy
    if other == "output":
        output.write_bytes(output.read_bytes()[:-1] + b"?")
    if other == "settings":
        command = (*command, "--precision", "float16")
    if other == "part":
        (output.with_name(output.name + ".parts") / "00000000.npz").unlink()
    if other == "restart":
        command = (*command, "--restart")
    content, kept = output.read_bytes(), parts_of(output)
    run = invoke(*command)
    assert run.code == 2
    assert f"{output} is there already; use --overwrite" in run.err
    assert output.read_bytes() == content
    assert parts_of(output) == kept


@pytest.mark.parametrize("untidy", [".npy"], indirect=True)
def test_parts_that_a_killed_run_had_begun_to_remove_are_removed(
    invoke: Invoke, untidy: tuple[Path, tuple[object, ...]]
) -> None:
    output, command = untidy
    folder = output.with_name(output.name + ".parts")
    (folder / "manifest.json").unlink()
    content = output.read_bytes()
    run = invoke(*command)
    assert run.code == 2
    assert f"{output} is there already; use --overwrite" in run.err
    assert output.read_bytes() == content
    assert not folder.exists()


def test_of_the_parts_folder_the_files_of_others_are_left_and_what_a_killed_run_was_writing_is_not(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    stranger = tmp_path / "v.npy.parts" / "notes.md"
    stranger.parent.mkdir()
    stranger.write_text("mine", encoding="utf-8")
    (stranger.parent / "00000009.npz.tmp").write_bytes(b"half")
    run = invoke("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, "--restart")
    assert run.code == 0, run.err
    assert [path.name for path in stranger.parent.iterdir()] == ["notes.md"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no open file")
def test_a_run_that_ends_while_another_begins_leaves_it_no_removed_folder(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    flock = fcntl.flock

    def after_the_end_of_another(file: Any, operation: int) -> None:
        shutil.rmtree(tmp_path / "v.npy.parts")
        flock(file, operation)

    command = ("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", after_the_end_of_another)
        run = invoke(*command)
    assert run.code == 2
    assert "another process was working in" in run.err
    assert invoke(*command).code == 0
