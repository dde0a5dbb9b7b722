"""The LangChain examples run as a newcomer would run them, on small models."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCORED_LINE = re.compile(r"^(\d\.\d{3})  (.+)$", re.MULTILINE)


Run = Callable[..., str]


@pytest.fixture
def run(
    embedding_checkpoint: Path,
    reranking_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run an example on small models and return what it prints."""

    def run(name: str, *arguments: str) -> str:
        models = ["--model", str(embedding_checkpoint), "--reranker", str(reranking_checkpoint)]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments, *models])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("name", "counts"), [("langchain_rag", [3]), ("hybrid_retrieval", [3, 4, 5, 6]), ("agent_tool", [2])]
)
def test_an_example_prints_a_ranking(name: str, counts: list[int], run: Run) -> None:
    ranking = SCORED_LINE.findall(run(name))
    scores = [float(score) for score, _ in ranking]
    assert len(set(ranking)) in counts
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    ("query", "found_by_words"),
    [
        ("E-4711", {"E-4711"}),
        ("fuse hose", {"If", "Store"}),
        ("xylophone", set()),
    ],
)
def test_words_bring_the_documents_that_contain_them_and_no_other(
    query: str, found_by_words: set[str], run: Run
) -> None:
    """Of each document the first word: BM25 knows rare words, whatever the small model finds near."""
    lines = [text for _, text in SCORED_LINE.findall(run("hybrid_retrieval", query))]
    assert {re.split(r"[: ]", line)[0] for line in lines if "(found by words" in line} == found_by_words
    assert len([line for line in lines if line.endswith("meaning)")]) == 3
