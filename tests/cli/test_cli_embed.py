"""`embed`: formats, summaries, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import Invoke
from embedding_job import SMALL
from qwen3_rag import Embedder, TruncationWarning
from qwen3_rag.cli.rows import open_rows


def test_text_lines_become_the_rows_of_a_matrix(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, expected: np.ndarray
) -> None:
    output = tmp_path / "vectors.npy"
    run = invoke("embed", lines, output, "--model", embedding_checkpoint, *SMALL)
    assert run.code == 0, run.err
    matrix = np.load(output)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    assert f"{len(expected)} rows" in run.err
    assert run.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "vectors.npy"]


@pytest.mark.parametrize("source", ["lines", "jsonl", "parquet"])
def test_jsonl_output_keeps_rows_and_gives_back_the_same_numbers(
    invoke: Invoke,
    source: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    embedding_checkpoint: Path,
    texts: list[str],
    expected: np.ndarray,
) -> None:
    path = request.getfixturevalue(source)
    if source == "parquet":
        table = pq.read_table(path).drop_columns("when")
        pq.write_table(table, path)
    field = "text" if source == "lines" else "body"
    matrix = tmp_path / "v.npy"
    output = tmp_path / "v.jsonl"
    for target in (matrix, output):
        run = invoke("embed", path, target, "--model", embedding_checkpoint, "--field", field, *SMALL)
        assert run.code == 0, run.err
    rows = [json.loads(line) for line in output.read_bytes().split(b"\n")[:-1]]
    assert [row[field] for row in rows] == texts
    if source != "jsonl":  # of whose lines every character is kept
        assert "数据库" in output.read_text(encoding="utf-8")
    if source != "lines":
        assert [row["id"] for row in rows] == list(range(len(texts)))
    vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(vectors, np.load(matrix))
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_jsonl_rows_are_copied_character_by_character(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    path = tmp_path / "odd.jsonl"
    row = '{"n": 1.000, "big": 123456789012345678901234567890, "same": 1, "same": 2,"text":"\\u00e9 é" }'
    path.write_text(row + "\r\n", encoding="utf-8", newline="")
    output = tmp_path / "v.jsonl"
    assert invoke("embed", path, output, "--model", embedding_checkpoint, *SMALL).code == 0
    written = output.read_text(encoding="utf-8")
    assert written.startswith(row.removesuffix(" }") + ', "embedding": [')
    assert written.count("\n") == 1


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_the_texts(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, embedder: Embedder
) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes("\ufefffirst\r\nsecond\r\n".encode())
    output = tmp_path / "v.npy"
    assert invoke("embed", path, output, "--model", embedding_checkpoint, *SMALL).code == 0
    np.testing.assert_allclose(np.load(output), embedder.embed_documents(["first", "second"]), atol=1e-6)


def test_what_only_looks_like_a_mark_or_a_line_end_stays(tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes("\ufeff\ufefffirst\r\r\n\ufeffsecond\nlast\r".encode())
    assert list(open_rows(path, "text").texts()) == ["\ufefffirst\r", "\ufeffsecond", "last\r"]


def test_queries_carry_the_instruction(
    invoke: Invoke,
    lines: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    embedder: Embedder,
    texts: list[str],
) -> None:
    output = tmp_path / "v.npy"
    run = invoke(
        "embed",
        lines,
        output,
        "--model",
        embedding_checkpoint,
        "--role",
        "query",
        "--instruction",
        "code",
        *SMALL,
    )
    assert run.code == 0, run.err
    np.testing.assert_allclose(np.load(output), embedder.embed_queries(texts, instruction="code"), atol=1e-6)


def test_documents_take_no_instruction(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    run = invoke("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, "--instruction", "code")
    assert run.code == 2
    assert "documents take no instruction" in run.err


@pytest.mark.parametrize("ending", [".npy", ".jsonl", ".parquet"])
def test_an_input_without_rows_gives_an_output_without_rows(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, ending: str
) -> None:
    path = tmp_path / "empty.txt"
    path.touch()
    output = tmp_path / f"v{ending}"
    run = invoke("embed", path, output, "--model", embedding_checkpoint, *SMALL)
    assert run.code == 0, run.err
    if ending == ".npy":
        assert np.load(output).shape == (0, 32)
    elif ending == ".jsonl":
        assert output.read_bytes() == b""
    else:
        assert pq.read_table(output).num_rows == 0


def test_the_summary_counts_rows_tokens_and_cut_texts_in_place_of_warnings(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, texts: list[str]
) -> None:
    command = ("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        run = invoke(*command, "--max-tokens", 5, "--json")
    summary = json.loads(run.out)
    assert summary["rows"] == len(texts)
    assert summary["rows_of_earlier_runs"] == 0
    assert summary["dimensions"] == 32
    assert summary["prompt_tokens"] == summary["computed_tokens"] + summary["reused_tokens"]
    assert summary["truncated_texts"] > 0
    assert f"{summary['truncated_texts']} texts were longer than --max-tokens and lost their end" in run.err


def test_quiet_prints_nothing(invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path) -> None:
    run = invoke("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL, "--quiet")
    assert (run.code, run.out, run.err) == (0, "", "")


def test_quiet_silences_the_processes_of_devices_too(
    invoke: Invoke, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)  # an earlier command's
    assert invoke("embed", lines, tmp_path / "v.npy", "--model", "demo", "--quiet").code == 0
    hidden = "from huggingface_hub.utils import are_progress_bars_disabled as hidden; print(hidden())"
    child = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=True)
    assert child.stdout == "True\n"


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_folder_in_place_of_the_output_is_refused_before_work_begins(
    options: list[str], invoke: Invoke, lines: Path, tmp_path: Path
) -> None:
    output = tmp_path / "v.npy"
    output.mkdir()
    run = invoke("embed", lines, output, "--model", "demo", *options)
    assert (run.code, run.err) == (2, f"error: cannot write {output}: it is a folder\n")
    assert list(output.iterdir()) == []
    assert not (tmp_path / "v.npy.parts").exists()


BAD_ROWS = {
    "no JSON": ("{", "is not JSON"),
    "no object": ("[1]", "is not a JSON object"),
    "nested deeply": (f'{{"text": "a", "deep": {"[" * 100_000}{"]" * 100_000}}}', "is nested too deeply"),
    "no field": ('{"other": 1}', "has no field 'text'; it has: 'other'"),
    "no field at all": ("{}", "has no field 'text'; it has: none"),
    "no string": ('{"text": 7}', "has 7 in 'text', not a string"),
    "a null": ('{"text": null}', "has null in 'text', not a string"),
    "a blank line": (" ", "is blank, which only lines at the end may be"),
    "blank lines": (" \n\n", "is blank, which only lines at the end may be"),
    "a lone surrogate": ('{"text": "\\ud800"}', "lone surrogate"),
    "an embedding": ('{"text": "a", "embedding": []}', 'already has a field "embedding"'),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_before_any_row_is_embedded(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, name: str
) -> None:
    row, problem = BAD_ROWS[name]
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "good"}}\n{row}\n{{"text": "good"}}\n', encoding="utf-8")
    run = invoke("embed", path, tmp_path / "v.jsonl", "--model", embedding_checkpoint, "--chunk-size", 1)
    assert run.code == 2
    assert f"error: row 2 of {path} " in run.err
    assert problem in run.err
    assert "Traceback" not in run.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_field_in_place_of_the_vectors_is_refused_before_any_row_is_embedded(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    model = ("--model", embedding_checkpoint, *SMALL, "--field", "embedding")
    run = invoke("embed", lines, tmp_path / "v.jsonl", *model)
    assert run.code == 2
    assert '--field is "embedding", which is where the vectors go' in run.err
    assert invoke("embed", lines, tmp_path / "v.npy", *model).code == 0, "a matrix alone has no fields"


def test_a_line_that_is_not_utf8_is_named(invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"good\ncaf\xe9\n")
    run = invoke("embed", path, tmp_path / "v.npy", "--model", embedding_checkpoint)
    assert run.code == 2
    assert "row 2" in run.err
    assert "UTF-8" in run.err


def test_unknown_endings_and_absent_files_are_refused(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    model = ("--model", embedding_checkpoint)
    assert "no such file" in invoke("embed", tmp_path / "none.txt", tmp_path / "v.npy", *model).err
    assert "outputs end in" in invoke("embed", lines, tmp_path / "v.csv", *model).err
    (tmp_path / "a.csv").touch()
    assert "inputs end in" in invoke("embed", tmp_path / "a.csv", tmp_path / "v.npy", *model).err
    assert "no such folder" in invoke("embed", lines, tmp_path / "none" / "v.npy", *model).err


def test_a_checkpoint_that_cannot_be_had_is_one_line_and_exit_code_2(
    invoke: Invoke, lines: Path, tmp_path: Path
) -> None:
    run = invoke("embed", lines, tmp_path / "v.npy", "--model", tmp_path / "no-model")
    assert run.code == 2
    assert run.err.startswith("error: ")
    assert "Traceback" not in run.err


def test_an_unknown_backend_is_answered_with_those_there_are(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    run = invoke("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint, "--backend", "nothing")
    assert run.code == 2
    assert "transformers" in run.err


def test_ndjson_is_another_ending_of_jsonl(
    invoke: Invoke, jsonl: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    command = ("--field", "body", "--model", embedding_checkpoint, *SMALL)
    same = jsonl.rename(tmp_path / "rows.ndjson")
    assert invoke("embed", same, tmp_path / "v.ndjson", *command).code == 0
    assert invoke("embed", same, tmp_path / "v.jsonl", *command).code == 0
    assert (tmp_path / "v.ndjson").read_bytes() == (tmp_path / "v.jsonl").read_bytes()


@pytest.mark.parametrize("ending", [".npy", ".jsonl", ".parquet"])
def test_endings_may_be_in_capitals(
    invoke: Invoke, jsonl: Path, parquet: Path, tmp_path: Path, embedding_checkpoint: Path, ending: str
) -> None:
    command = ("--field", "body", "--model", embedding_checkpoint, *SMALL)
    source = parquet if ending == ".parquet" else jsonl
    same = source.with_suffix(source.suffix.upper())
    same.write_bytes(source.read_bytes())
    for given, output in ((source, f"small{ending}"), (same, f"large{ending.upper()}")):
        run = invoke("embed", given, tmp_path / output, *command)
        assert run.code == 0, run.err
    assert (tmp_path / f"small{ending}").read_bytes() == (tmp_path / f"large{ending.upper()}").read_bytes()


@pytest.mark.parametrize("end", ["\n", "\r\n", "  \n\n", " "])
def test_blank_lines_at_the_end_of_jsonl_are_no_rows(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, end: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "one"}\n{"text": "two"}\n' + end.encode())
    run = invoke("embed", path, tmp_path / "v.jsonl", "--model", embedding_checkpoint, *SMALL)
    assert run.code == 0, run.err
    rows = (tmp_path / "v.jsonl").read_text().splitlines()
    assert [json.loads(row)["text"] for row in rows] == ["one", "two"]


def test_standard_input_is_refused_with_the_reason(invoke: Invoke, tmp_path: Path) -> None:
    run = invoke("embed", "-", tmp_path / "v.npy", "--model", "demo", stdin="a text\n")
    assert run.code == 2
    assert "save it to a .txt file first" in run.err
