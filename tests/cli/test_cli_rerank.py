"""`rerank`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Invoke
from qwen3_rag import Reranker

QUERY = "where are rows kept?"


def test_the_ranking_is_that_of_the_library(
    invoke: Invoke, lines: Path, reranking_checkpoint: Path, texts: list[str]
) -> None:
    run = invoke("rerank", QUERY, lines, "--model", reranking_checkpoint, "--dtype", "float32", "--json")
    assert run.code == 0, run.err
    ranking = json.loads(run.out)["ranking"]
    expected = Reranker(str(reranking_checkpoint), dtype="float32").rerank(QUERY, texts)
    assert [(item["index"], item["text"]) for item in ranking] == [(item.index, item.text) for item in expected]
    assert [item["score"] for item in ranking] == pytest.approx([item.score for item in expected], abs=1e-6)


def test_standard_input_gives_documents_line_by_line(
    invoke: Invoke, lines: Path, reranking_checkpoint: Path
) -> None:
    command = ("--model", reranking_checkpoint, "--dtype", "float32", "--json")
    piped = invoke("rerank", QUERY, "-", *command, stdin=lines.read_bytes())
    assert json.loads(piped.out) == json.loads(invoke("rerank", QUERY, lines, *command).out)


def test_top_k_and_instruction_are_taken(invoke: Invoke, lines: Path, reranking_checkpoint: Path) -> None:
    command = ("rerank", QUERY, lines, "--model", reranking_checkpoint, "--dtype", "float32", "--json")
    two = json.loads(invoke(*command, "--top-k", 2).out)["ranking"]
    assert len(two) == 2
    other = json.loads(invoke(*command, "--top-k", 2, "--instruction", "code").out)["ranking"]
    assert [item["score"] for item in other] != [item["score"] for item in two]


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
