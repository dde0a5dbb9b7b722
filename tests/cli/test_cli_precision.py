"""`embed --precision`: element types of the vectors, and the ranges that int8 and uint8 need."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import Invoke
from embedding_job import SMALL
from qwen3_rag import Embedder


def test_int8_needs_ranges_and_uses_them_for_every_part(
    invoke: Invoke,
    lines: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    embedder: Embedder,
    texts: list[str],
) -> None:
    output = tmp_path / "v.npy"
    command = ("embed", lines, output, "--model", embedding_checkpoint, *SMALL, "--precision", "int8")
    run = invoke(*command)
    assert run.code == 2
    assert "--ranges" in run.err
    ranges = np.stack([np.full(32, -0.5), np.full(32, 0.5)]).astype(np.float32)
    np.save(tmp_path / "ranges.npy", ranges)
    run = invoke(*command, "--ranges", tmp_path / "ranges.npy")
    assert run.code == 0, run.err
    difference = np.load(output).astype(int) - embedder.embed_documents(texts, precision="int8", ranges=ranges)
    assert np.abs(difference).max() <= 1  # a value at the edge of a step may round either way


@pytest.mark.parametrize("damage", ["empty", "cut", "several arrays", "complex", "strings"])
def test_ranges_that_are_not_numbers_are_an_error_that_names_the_file(
    damage: str, invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    ranges, right = tmp_path / "ranges.npy", np.zeros((2, 32))
    with ranges.open("wb") as file:
        if damage == "several arrays":
            np.savez(file, right=right)
        elif damage != "empty":
            np.save(file, right.astype({"complex": complex, "strings": str}.get(damage, float)))
    if damage == "cut":
        ranges.write_bytes(ranges.read_bytes()[:-1])
    run = invoke(
        *("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL),
        *("--precision", "int8", "--ranges", ranges),
    )
    assert run.code == 2
    assert f"{ranges} is not a .npy file of real numbers" in run.err


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_ranges_is_unpickled(invoke: Invoke, lines: Path, tmp_path: Path) -> None:
    ranges, touched = tmp_path / "ranges.npy", tmp_path / "touched"
    np.save(ranges, np.array([[Touch(touched)]], dtype=object), allow_pickle=True)
    command = ("embed", lines, tmp_path / "v.npy", "--model", "demo", "--precision", "int8", "--ranges", ranges)
    run = invoke(*command)
    assert run.code == 2
    assert f"{ranges} is not a .npy file of real numbers" in run.err
    assert not touched.exists()


def test_ranges_of_another_shape_are_refused_before_work_begins(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    np.save(tmp_path / "ranges.npy", np.zeros((2, 31), np.float32))
    run = invoke(
        *("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL),
        *("--precision", "uint8", "--ranges", tmp_path / "ranges.npy"),
    )
    assert run.code == 2
    assert "(2, 32)" in run.err
    assert not (tmp_path / "v.npy.parts").exists()


def test_ranges_for_a_precision_that_has_none_are_refused(invoke: Invoke, lines: Path, tmp_path: Path) -> None:
    command = ("embed", lines, tmp_path / "v.npy", "--model", "demo", "--ranges", tmp_path / "ranges.npy")
    run = invoke(*command, "--precision", "float16")
    assert run.code == 2
    assert "--ranges goes with --precision int8 or uint8" in run.err
    run = invoke(*command, "--precision", "int8")
    assert run.code == 2
    assert str(tmp_path / "ranges.npy") in run.err, "it is not there"


@pytest.mark.parametrize("precision", ["float16", "binary", "ubinary"])
def test_other_precisions_reach_the_output(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, precision: str, embedder: Embedder
) -> None:
    matrix, rows = tmp_path / "v.npy", tmp_path / "v.jsonl"
    for output in (matrix, rows):
        run = invoke("embed", lines, output, "--model", embedding_checkpoint, *SMALL, "--precision", precision)
        assert run.code == 0, run.err
        length = 64 if precision == "float16" else 4
        assert f"x 32 {precision}, {length} bytes each" in run.err
    vectors = np.load(matrix)
    assert vectors.dtype == embedder.embed_documents(["a"], precision=precision).dtype  # type: ignore[arg-type]
    read = [json.loads(line)["embedding"] for line in rows.read_bytes().split(b"\n")[:-1]]
    np.testing.assert_array_equal(np.array(read, dtype=vectors.dtype), vectors)


def test_the_summary_gives_the_dimensions_of_binary_vectors_and_not_their_bytes(
    invoke: Invoke, lines: Path, tmp_path: Path
) -> None:
    command = ("embed", lines, tmp_path / "v.npy", "--model", "demo", "--device", "cpu", "--json")
    summary = json.loads(invoke(*command, "--precision", "binary").out)
    assert (summary["dimensions"], summary["bytes_per_row"]) == (256, 32)
    summary = json.loads(invoke(*command, "--overwrite").out)
    assert (summary["dimensions"], summary["bytes_per_row"]) == (256, 1024)
