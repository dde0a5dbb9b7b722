"""The LangChain examples run as a newcomer would run them, on small models."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCORED_LINE = re.compile(r"^(\d\.\d{3})  (.+)$", re.MULTILINE)


@pytest.mark.parametrize(("name", "count"), [("langchain_rag", 3), ("hybrid_retrieval", 3), ("agent_tool", 2)])
def test_an_example_prints_a_ranking(
    name: str,
    count: int,
    embedding_checkpoint: Path,
    reranking_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = ["--model", str(embedding_checkpoint), "--reranker", str(reranking_checkpoint)]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *models])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    ranking = SCORED_LINE.findall(capsys.readouterr().out)
    scores = [float(score) for score, _ in ranking]
    assert len(set(ranking)) == count
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
