"""`rerank`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from command import Invoke
from qwen3_rag import Reranker, TruncationWarning
from qwen3_rag.cli.rerank import one_line, rerank
from qwen3_rag.errors import ConfigurationError

QUERY = "where are rows kept?"


def test_the_ranking_is_that_of_the_library(
    invoke: Invoke, lines: Path, reranking_checkpoint: Path, texts: list[str]
) -> None:
    run = invoke("rerank", QUERY, lines, "--model", reranking_checkpoint, "--dtype", "float32", "--json")
    assert run.code == 0, run.err
    ranking = json.loads(run.out)["ranking"]
    assert "数据库" in run.out, "what can be printed is not escaped"
    expected = Reranker(str(reranking_checkpoint), dtype="float32").rerank(QUERY, texts)
    assert [(item["index"], item["text"]) for item in ranking] == [(item.index, item.text) for item in expected]
    assert [item["score"] for item in ranking] == pytest.approx([item.score for item in expected], abs=1e-6)


def test_standard_input_gives_documents_line_by_line(
    invoke: Invoke, lines: Path, reranking_checkpoint: Path
) -> None:
    command = ("--model", reranking_checkpoint, "--dtype", "float32", "--json")
    piped = invoke("rerank", QUERY, "-", *command, stdin=lines.read_bytes())
    assert json.loads(piped.out) == json.loads(invoke("rerank", QUERY, lines, *command).out)


def test_a_line_of_standard_input_that_is_not_utf_8_is_named(invoke: Invoke) -> None:
    run = invoke("rerank", QUERY, "-", "--model", "demo", stdin=b"good\ncaf\xe9\n")
    assert run.code == 2
    assert "error: row 2 of standard input is not UTF-8" in run.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    terminal, end = pty.openpty()
    with os.fdopen(terminal), os.fdopen(end) as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        with pytest.raises(ConfigurationError, match="pipe one document per line"):
            rerank(QUERY, Path("-"), model="demo")


def test_a_cell_is_one_line_that_shows_whether_it_was_cut() -> None:
    assert one_line(" two\n\twords ") == "two words"
    assert one_line("x" * 300) == "x" * 300
    assert one_line("x" * 301) == "x" * 299 + "…"


def test_top_k_and_instruction_are_taken(invoke: Invoke, lines: Path, reranking_checkpoint: Path) -> None:
    command = ("rerank", QUERY, lines, "--model", reranking_checkpoint, "--dtype", "float32", "--json")
    two = json.loads(invoke(*command, "--top-k", 2).out)["ranking"]
    assert len(two) == 2
    other = json.loads(invoke(*command, "--top-k", 2, "--instruction", "code").out)["ranking"]
    assert [item["score"] for item in other] != [item["score"] for item in two]


def test_nothing_is_computed_for_none(invoke: Invoke, lines: Path, reranking_checkpoint: Path) -> None:
    run = invoke("rerank", QUERY, lines, "--model", reranking_checkpoint, "--top-k", 0, "--json")
    assert run.code == 0, run.err
    found = json.loads(run.out)
    assert (found["ranking"], found["usage"]["texts"]) == ([], 0)


def test_the_table_shows_markup_in_texts_as_it_is(
    invoke: Invoke, tmp_path: Path, reranking_checkpoint: Path
) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text(json.dumps({"body": "[bold]not markup[/bold]"}) + "\n", encoding="utf-8")
    run = invoke("rerank", QUERY, path, "--model", reranking_checkpoint, "--field", "body")
    assert run.code == 0, run.err
    assert "[bold]not markup[/bold]" in run.out


def test_an_embedding_model_is_refused(invoke: Invoke, lines: Path) -> None:
    run = invoke("rerank", QUERY, lines, "--model", "Qwen/Qwen3-Embedding-0.6B")
    assert run.code == 2
    assert "give it to Embedder" in run.err


DEMO = ("--model", "demo", "--device", "cpu", "--dtype", "float32")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_shows_rank_and_score_at_any_width(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    path = tmp_path / "documents.txt"
    path.write_text("".join(f"{'long ' * 50}document {number}\n" for number in range(12)))
    monkeypatch.setenv("COLUMNS", str(width))
    run = invoke("rerank", QUERY, path, *DEMO, "--quiet")
    assert run.code == 0, run.err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in run.out.splitlines() if "│" in line]
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 13)]
    assert all(0 <= float(row[1]) <= 1 and len(row[1]) == 6 for row in rows)
    assert sorted(int(row[2]) for row in rows) == list(range(1, 13))
    assert all(row[3].startswith("long") and row[3].endswith("…") for row in rows)
    assert max(map(len, run.out.splitlines())) == width


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_json_is_escaped_where_standard_output_lacks_a_character(
    invoke: Invoke, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "documents.txt"
    path.write_text("数据库 😀\nwords\n", encoding="utf-8")
    run = invoke("rerank", "数据库?", path, *DEMO, "--json", encoding=encoding)
    assert run.code == 0, run.err
    report = json.loads(run.out)
    assert report["query"] == "数据库?"
    assert {item["text"] for item in report["ranking"]} == {"数据库 😀", "words"}


def test_the_table_is_shown_where_standard_output_lacks_a_character(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "documents.txt"
    path.write_text("数据库\nwords\n", encoding="utf-8")
    run = invoke("rerank", "数据库?", path, *DEMO, "--quiet", encoding="cp1252")
    assert run.code == 0, run.err
    assert "???" in run.out
    assert "words" in run.out


@pytest.mark.parametrize("where", ["QUERY", "--instruction", "--field"])
def test_what_is_not_utf_8_on_the_command_line_is_bad_usage(invoke: Invoke, lines: Path, where: str) -> None:
    """Python hands such bytes on as lone surrogates."""
    bad = "bad\udcff"
    arguments = (bad, lines) if where == "QUERY" else (QUERY, lines, where, bad)
    run = invoke("rerank", *arguments, *DEMO)
    assert run.code == 2
    assert f"Invalid value for '{where}': not UTF-8 at character 4" in run.err


def test_cut_documents_are_told_of_in_the_summary_alone(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "documents.txt"
    path.write_text(f"{'long ' * 300}\nshort\n")
    command = ("rerank", QUERY, path, *DEMO, "--max-tokens", 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        assert "1 texts were longer than --max-tokens and lost their end" in invoke(*command).err
        report = invoke(*command, "--json")
        assert json.loads(report.out)["usage"]["truncated_texts"] == 1
        assert "lost their end" in report.err
        assert invoke(*command, "--quiet").err == ""


@pytest.mark.parametrize("command", ["embed", "rerank"])
def test_devices_and_model_kwargs_reach_the_backend(
    invoke: Invoke, lines: Path, tmp_path: Path, command: str
) -> None:
    arguments = (lines, tmp_path / "v.npy") if command == "embed" else (QUERY, lines)
    base = (command, *arguments, "--model", "demo")
    run = invoke(*base, "--device", "cpu", "--model-kwargs", '{"compile": "perhaps"}')
    assert run.code == 2
    assert "compile" in run.err
    assert "perhaps" in run.err
    # Of two devices this backend says that it has none: nothing is started.
    run = invoke(*base, "--backend", "remote", "--device", "cuda:0", "--device", "cuda:1")
    assert run.code == 2
    assert "got device=['cuda:0', 'cuda:1']" in run.err
    assert "must be a JSON object" in invoke(*base, "--model-kwargs", "[]").err


def test_a_closed_standard_error_keeps_the_ranking(lines: Path, reranking_checkpoint: Path) -> None:
    command = [sys.executable, "-m", "qwen3_rag.cli", "rerank", "query", lines, "--json"]
    words = shlex.join(map(str, [*command, "--model", reranking_checkpoint, "--dtype", "float32"]))
    run = subprocess.run(["sh", "-c", f"{words} 2>&-"], stdout=subprocess.PIPE, text=True, timeout=120)
    assert run.returncode == 0
    assert json.loads(run.stdout)["ranking"]
