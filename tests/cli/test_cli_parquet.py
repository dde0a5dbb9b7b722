"""`embed` with Parquet files: columns and Arrow types are kept, and what a format cannot hold is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import Invoke
from embedding_job import SMALL


@pytest.mark.parametrize("source", ["lines", "jsonl", "parquet"])
def test_parquet_output_keeps_columns_and_adds_the_vectors(
    invoke: Invoke,
    source: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    embedding_checkpoint: Path,
    texts: list[str],
    expected: np.ndarray,
) -> None:
    path = request.getfixturevalue(source)
    field = "text" if source == "lines" else "body"
    output = tmp_path / "v.parquet"
    run = invoke("embed", path, output, "--model", embedding_checkpoint, "--field", field, *SMALL)
    assert run.code == 0, run.err
    table = pq.read_table(output)
    assert table[field].to_pylist() == texts
    if source == "parquet":
        assert table.drop_columns("embedding").equals(pq.read_table(path))
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_null_or_a_number_in_parquet_is_refused(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    path = tmp_path / "rows.parquet"
    command = ("embed", path, tmp_path / "v.npy", "--model", embedding_checkpoint)
    pq.write_table(pa.table({"text": ["a", None]}), path)
    assert "row 2" in invoke(*command).err
    pq.write_table(pa.table({"text": [1, 2]}), path)
    assert "is int64, not text" in invoke(*command).err
    pq.write_table(pa.table({"body": ["a"]}), path)
    assert "has no column 'text'; it has: body (choose with --field)" in invoke(*command).err


@pytest.mark.parametrize("kind", ["string_view", "large_string", "dictionary"])
@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_every_arrow_type_of_text_is_read_and_kept(
    invoke: Invoke,
    tmp_path: Path,
    embedding_checkpoint: Path,
    texts: list[str],
    expected: np.ndarray,
    kind: str,
    ending: str,
) -> None:
    """Polars writes string views."""
    path, output = tmp_path / "rows.parquet", tmp_path / f"v{ending}"
    try:
        column = (
            pa.array(texts).dictionary_encode()
            if kind == "dictionary"
            else pa.array(texts, getattr(pa, kind)())
        )
        pq.write_table(pa.table({"text": column, "title": column}), path, row_group_size=2)
    except (AttributeError, NotImplementedError) as error:  # pa.ArrowNotImplementedError is one
        pytest.skip(f"this pyarrow cannot: {error}")
    run = invoke("embed", path, output, "--model", embedding_checkpoint, *SMALL)
    assert run.code == 0, run.err
    if ending == ".parquet":
        table = pq.read_table(output)
        assert table.drop_columns("embedding").equals(pq.read_table(path))
        rows = table.to_pylist()
    else:
        rows = [json.loads(line) for line in output.read_bytes().split(b"\n")[:-1]]
    assert [(row["text"], row["title"]) for row in rows] == [(text, text) for text in texts]
    np.testing.assert_allclose(np.array([row["embedding"] for row in rows]), expected, atol=1e-6)


FIT_NO_COLUMN: dict[str, list[dict[str, object]]] = {
    "types that differ": [{"id": 1}, {"id": "x"}],
    "an object without fields": [{"id": {}}],
    "a large number": [{"id": 2**70}],
    "a number that a later fraction would round": [{"id": 2**60 + 1}, *([{}] * 1500), {"id": 1.5}],
}


@pytest.mark.parametrize("name", FIT_NO_COLUMN)
def test_jsonl_fields_that_fit_no_column_are_refused_before_any_row_is_embedded(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, name: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "a", **row}) + "\n" for row in FIT_NO_COLUMN[name]))
    run = invoke("embed", path, tmp_path / "v.parquet", "--model", embedding_checkpoint)
    assert run.code == 2
    assert str(path) in run.err
    assert "write .jsonl" in run.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_fields_that_only_later_rows_have_get_a_column(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "a", "n": 1}] * 1500 + [{"text": "a", "n": 1.5, "late": {"x": "y"}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = tmp_path / "v.parquet"
    run = invoke("embed", path, output, "--model", embedding_checkpoint, "--dimensions", 32)
    assert run.code == 0, run.err
    table = pq.read_table(output)
    assert table["n"].to_pylist() == [1.0] * 1500 + [1.5]
    assert table["late"].to_pylist() == [None] * 1500 + [{"x": "y"}]


@pytest.fixture
def long_parquet(tmp_path: Path) -> Path:
    """More rows than are read at a time, in row groups of another size."""
    path = tmp_path / "long.parquet"
    pq.write_table(pa.table({"text": ["a"] * 2100, "id": range(2100)}), path, row_group_size=900)
    return path


@pytest.mark.parametrize("chunk_size", [700, 1500])
def test_rows_of_a_long_file_stay_in_order_whatever_the_size_of_parts(
    invoke: Invoke, long_parquet: Path, tmp_path: Path, embedding_checkpoint: Path, chunk_size: int
) -> None:
    command = ("--model", embedding_checkpoint, "--dimensions", 32, "--chunk-size", chunk_size)
    run = invoke("embed", long_parquet, tmp_path / "v.parquet", *command)
    assert run.code == 0, run.err
    assert pq.read_table(tmp_path / "v.parquet").drop_columns("embedding").equals(pq.read_table(long_parquet))


def test_a_bad_row_far_into_a_long_file_is_named(
    invoke: Invoke, long_parquet: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    table = pq.read_table(long_parquet)
    model = ("--model", embedding_checkpoint)
    texts = [*["a"] * 2000, None, *["a"] * 99]
    pq.write_table(table.set_column(0, "text", pa.array(texts)), long_parquet)
    assert "row 2001 of" in invoke("embed", long_parquet, tmp_path / "v.npy", *model).err
    days = pa.array([None] * 1999 + [0] * 101, pa.date32())
    pq.write_table(table.append_column("day", days), long_parquet)
    assert "row 2000 of" in invoke("embed", long_parquet, tmp_path / "v.jsonl", *model).err


def test_without_pyarrow_the_error_names_the_extra_and_other_formats_work(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "qwen3_rag.cli.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run = invoke("embed", lines, tmp_path / "v.parquet", "--model", embedding_checkpoint)
    assert run.code == 2
    assert 'pip install "qwen3-rag[parquet]"' in run.err
    for ending in (".npy", ".jsonl"):
        run = invoke("embed", lines, tmp_path / f"v{ending}", "--model", embedding_checkpoint, *SMALL)
        assert run.code == 0, run.err


@pytest.mark.parametrize("row", ['{"text": "b", "note": "\\ud800"}', '{"text": "b", "\\ud800": 1}'])
def test_a_lone_surrogate_that_no_column_holds_is_named_before_any_row_is_embedded(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, row: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "a"}}\n{row}\n')
    run = invoke("embed", path, tmp_path / "v.parquet", "--model", embedding_checkpoint)
    assert run.code == 2
    assert f"error: row 2 of {path} has a field with a lone surrogate" in run.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]
    assert invoke("embed", path, tmp_path / "v.jsonl", "--model", embedding_checkpoint, *SMALL).code == 0
    assert (tmp_path / "v.jsonl").read_text().splitlines()[1].startswith(row[:-1])


def test_columns_of_one_name_are_refused_where_one_would_be_lost(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    path = tmp_path / "rows.parquet"
    model = ("--model", embedding_checkpoint, *SMALL)
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    run = invoke("embed", path, tmp_path / "v.npy", *model)
    assert run.code == 2
    assert "has several columns 'text'" in run.err
    columns = [pa.array(["a"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "n", "n"]), path)
    run = invoke("embed", path, tmp_path / "v.jsonl", *model)
    assert run.code == 2
    assert "has several columns 'n'" in run.err
    assert invoke("embed", path, tmp_path / "v.parquet", *model).code == 0
    assert pq.read_schema(tmp_path / "v.parquet").names == ["text", "n", "n", "embedding"]


def test_parquet_values_that_json_lacks_are_refused_before_any_row_is_embedded(
    invoke: Invoke, parquet: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    run = invoke("embed", parquet, tmp_path / "v.jsonl", "--field", "body", "--model", embedding_checkpoint)
    assert run.code == 2
    assert "row 1 of" in run.err
    assert "write .parquet" in run.err
    assert not (tmp_path / "v.jsonl.parts").exists()


@pytest.mark.parametrize(("column", "ending"), [("text", ".jsonl"), ("other", ".jsonl"), ("text", ".npy")])
def test_parquet_text_that_is_not_utf_8_is_named_before_any_row_is_embedded(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, column: str, ending: str
) -> None:
    broken = pa.array([b"fine", b"\xff"]).view(pa.string())
    columns = {"text": pa.array(["a", "b"]), "other": pa.array(["a", "b"]), column: broken}
    path = tmp_path / "broken.parquet"
    pq.write_table(pa.table(columns), path)
    run = invoke("embed", path, tmp_path / f"v{ending}", "--model", embedding_checkpoint)
    assert run.code == 2
    assert "row 2 of" in run.err
    assert "can't decode byte 0xff" in run.err


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused_before_any_row_is_embedded(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, number: float
) -> None:
    path = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "n": [1.0, number]}), path)
    run = invoke("embed", path, tmp_path / "v.jsonl", "--model", embedding_checkpoint)
    assert run.code == 2
    assert f"row 2 of {path} cannot be written as JSON" in run.err
    assert not (tmp_path / "v.jsonl").exists()


def test_a_column_in_place_of_the_vectors_is_refused_before_any_row_is_embedded(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"], "embedding": [[1.0]]}), path)
    for ending in (".parquet", ".jsonl"):
        run = invoke("embed", path, tmp_path / f"v{ending}", "--model", embedding_checkpoint, *SMALL)
        assert run.code == 2
        assert f'{path} already has a column "embedding"' in run.err
    assert invoke("embed", path, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL).code == 0


def test_dates_beyond_pythons_are_refused_in_json(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    path = tmp_path / "late.parquet"
    late = pa.array([10_000_000], pa.int32()).view(pa.date32())
    pq.write_table(pa.table({"text": ["a"], "day": late}), path)
    run = invoke("embed", path, tmp_path / "v.jsonl", "--model", embedding_checkpoint)
    assert run.code == 2
    assert "row 1 of" in run.err


def test_a_file_that_is_no_parquet_is_named(invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path) -> None:
    path = tmp_path / "text.parquet"
    path.write_text("not this format\n")
    run = invoke("embed", path, tmp_path / "v.npy", "--model", embedding_checkpoint)
    assert run.code == 2
    assert f"error: {path} is not a Parquet file" in run.err


def test_a_damaged_parquet_file_is_named(invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path) -> None:
    path = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"text": ["many words " * 50] * 50}), path, compression=None, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    run = invoke("embed", path, tmp_path / "v.npy", "--model", embedding_checkpoint)
    assert run.code == 2
    assert str(path) in run.err
