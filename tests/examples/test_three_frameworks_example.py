"""The three-framework example runs as a user would run it, and the frameworks agree."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from qwen3_rag import Embedder

NAMES = ["LangChain", "LlamaIndex", "Haystack"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "three_frameworks.py"


def test_example_prints_the_same_ranking_three_times(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    models = ["--model", str(embedding_checkpoint), "--reranker", str(reranking_checkpoint)]
    command = [sys.executable, str(EXAMPLE), "Who bakes?", *models]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    query, *lines = run.stdout.splitlines()
    assert query == "Who bakes?"
    rankings = {name: [line.split(maxsplit=1)[1] for line in lines if line.startswith(name)] for name in NAMES}
    assert len(rankings["LangChain"]) == 3
    assert rankings["LangChain"] == rankings["LlamaIndex"] == rankings["Haystack"]


def test_what_is_reranked_is_what_the_vectors_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--model", "demo", "--reranker", "demo"]
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, "What keeps planets on their orbits?", *models])
    example = runpy.run_path(str(EXAMPLE), run_name="__main__")
    _, *lines = capsys.readouterr().out.splitlines()
    query, pages = "What keeps planets on their orbits?", example["PAGES"]
    with Embedder("demo") as embedder:
        similarity = embedder.embed_documents(pages) @ embedder.embed_queries([query])[0]
    nearest = {pages[i] for i in (-similarity).argsort()[:3]}
    assert len(pages) > 3
    for name in NAMES:
        assert {line.split(maxsplit=2)[2] for line in lines if line.startswith(name)} == nearest
