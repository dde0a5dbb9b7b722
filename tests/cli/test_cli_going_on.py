"""What `embed` takes from an earlier run, what it then need not do, and what it leaves alone until the end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import Invoke
from embedding_job import SMALL, StoppedError, stop_after
from qwen3_rag.backends.device import choice
from qwen3_rag.cli.parts import Parts
from qwen3_rag.errors import ConfigurationError, NonFiniteOutputError, OutOfMemoryError, PromptTooLongError
from qwen3_rag.instructions import resolve_instruction


def stopped(invoke: Invoke, patched: pytest.MonkeyPatch, parts: int, *command: object) -> None:
    """Run a command that is stopped after so many parts."""
    with patched.context() as inner:
        stop_after(parts, inner)
        with pytest.raises(StoppedError):
            invoke(*command)


def test_an_output_is_as_it_was_until_its_replacement_is_whole(
    invoke: Invoke,
    lines: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: np.ndarray,
) -> None:
    output = tmp_path / "v.npy"
    output.write_bytes(b"precious")
    command = ("embed", lines, output, "--model", embedding_checkpoint, *SMALL)
    stopped(invoke, monkeypatch, 2, *command, "--overwrite")
    assert output.read_bytes() == b"precious"
    run = invoke(*command)
    assert (run.code, output.read_bytes()) == (2, b"precious")
    assert "--overwrite" in run.err
    run = invoke(*command, "--overwrite", "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 4
    assert "7/7" in run.err, "the bar counts rows of earlier runs too"
    assert "7 rows (4 of an earlier run)" in run.err
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_a_link_in_place_of_the_output_stays_and_its_target_is_written(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "v.npy", tmp_path / "disk" / "vectors.npy"
    link.symlink_to(target)
    command = ("embed", lines, link, "--model", embedding_checkpoint, *SMALL)
    assert invoke(*command).code == 0
    assert link.is_symlink()
    assert np.load(target).shape == (7, 32)
    assert "is there already" in invoke(*command).err
    assert invoke(*command, "--dimensions", 48, "--overwrite").code == 0
    assert link.is_symlink()
    assert np.load(target).shape == (7, 48)


def test_weights_are_not_read_again_where_nothing_is_left_to_compute(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3_rag.cli import assemble

    model = shutil.copytree(embedding_checkpoint, tmp_path / "model")
    output = tmp_path / "v.npy"
    command = ("embed", lines, output, "--model", model, *SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(assemble, "publish", lambda *_: (_ for _ in ()).throw(StoppedError))
        with pytest.raises(StoppedError):
            invoke(*command)
    for weights in model.glob("*.safetensors"):
        weights.unlink()
    run = invoke(*command)
    assert run.code == 0, run.err
    assert output.exists()


def test_another_machine_that_computes_in_another_element_type_does_not_go_on(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, "--chunk-size", 2)
    monkeypatch.setattr(choice, "computes_bfloat16", lambda _: False)
    stopped(invoke, monkeypatch, 1, *command, "--device", "cpu")
    monkeypatch.setattr(choice, "computes_bfloat16", lambda _: True)
    run = invoke(*command, "--device", "cpu")
    assert run.code == 2
    assert "computed in was 'float32' and is now 'bfloat16'" in run.err
    monkeypatch.setattr(choice, "computes_bfloat16", lambda _: False)
    assert invoke(*command, "--device", "cpu").code == 0


def test_a_matrix_alone_may_come_from_rows_that_have_an_embedding_already(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "embedding": [1, 2]}\n', encoding="utf-8")
    run = invoke("embed", path, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL)
    assert run.code == 0, run.err
    assert np.load(tmp_path / "v.npy").shape == (1, 32)


def test_parts_of_which_it_is_unknown_what_they_belong_to_are_not_used(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "v.npy"
    command = ("embed", lines, output, "--model", embedding_checkpoint, *SMALL)
    stopped(invoke, monkeypatch, 2, *command)
    (tmp_path / "v.npy.parts" / "manifest.json").unlink()
    run = invoke(*command, "--dimensions", 48, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 0
    assert np.load(output).shape == (7, 48)


def test_nothing_in_a_part_is_unpickled(tmp_path: Path) -> None:
    with Parts(tmp_path / "v.npy", restart=False) as parts:
        np.savez(parts.folder / "00000000.npz", vectors=np.array([[{}]]), usage=np.zeros(4, np.int64))
        with pytest.raises(ConfigurationError, match=r"00000000\.npz is damaged .*allow_pickle=False"):
            parts.read(0)


def test_other_ranges_are_refused(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = tmp_path / "ranges.npy"
    np.save(ranges, np.array([[-1.0] * 32, [1.0] * 32], np.float32))
    command = ("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL)
    command = (*command, "--precision", "int8", "--ranges", ranges)
    stopped(invoke, monkeypatch, 1, *command)
    np.save(ranges, np.array([[-1.0] * 32, [0.5] * 32], np.float32))
    run = invoke(*command)
    assert run.code == 2
    assert "ranges was" in run.err
    np.save(ranges, np.array([[-1.0] * 32, [1.0] * 32], np.float64))
    run = invoke(*command, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 2


def test_another_instruction_is_refused_and_the_same_in_other_words_is_not(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL, "--role", "query")
    stopped(invoke, monkeypatch, 1, *command, "--instruction", "code")
    run = invoke(*command)
    assert run.code == 2
    assert "instruction was" in run.err
    run = invoke(*command, "--instruction", resolve_instruction("code"), "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 2


def test_another_field_is_refused(
    invoke: Invoke, jsonl: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**json.loads(line), "title": "a title"} for line in jsonl.read_bytes().splitlines()]
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ("embed", jsonl, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL)
    stopped(invoke, monkeypatch, 1, *command, "--field", "body")
    run = invoke(*command, "--field", "title")
    assert run.code == 2
    assert "field was 'body' and is now 'title'" in run.err


def test_another_model_is_refused_and_the_same_by_another_path_is_not(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("embed", lines, tmp_path / "v.npy", *SMALL, "--json", "--model")
    stopped(invoke, monkeypatch, 1, *command, embedding_checkpoint)
    run = invoke(*command, "demo")
    assert run.code == 2
    assert f"model was '{embedding_checkpoint}' and is now 'demo'" in run.err
    run = invoke(*command, embedding_checkpoint / ".." / embedding_checkpoint.name)
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 2


@pytest.mark.parametrize(("folder", "code"), [("model", 2), ("snapshots/0a1b2c", 0)])
def test_weights_are_the_same_by_commit_or_by_size_and_time(
    invoke: Invoke,
    lines: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    code: int,
) -> None:
    model = shutil.copytree(embedding_checkpoint, tmp_path / folder)
    command = ("embed", lines, tmp_path / "v.npy", "--model", model, *SMALL)
    stopped(invoke, monkeypatch, 1, *command)
    os.utime(model / "model.safetensors", (0, 0))
    run = invoke(*command)
    assert run.code == code, run.err
    assert ("weights was" in run.err) == (code == 2)


@pytest.mark.parametrize("error", [NonFiniteOutputError, OutOfMemoryError, PromptTooLongError])
def test_what_goes_wrong_in_a_part_names_its_rows_and_keeps_the_others(
    invoke: Invoke,
    lines: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    command = ("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL)
    with monkeypatch.context() as patched:
        stop_after(2, patched, error("of this kind"))
        run = invoke(*command)
    assert run.code == 2
    assert f"error: rows 5 to 6 of {lines}: of this kind" in run.err
    run = invoke(*command, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 4
