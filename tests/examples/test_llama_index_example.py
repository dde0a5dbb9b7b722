"""The LlamaIndex example runs as a newcomer would run it, on small models."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("llama_index.core")

EXAMPLE = Path(__file__).parents[2] / "examples" / "llama_index_rag.py"
SCORED_LINE = re.compile(r"^(\d\.\d{3})  (\w+): .+$", re.MULTILINE)


def test_the_example_prints_a_ranking(
    embedding_checkpoint: Path,
    reranking_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = ["--model", str(embedding_checkpoint), "--reranker", str(reranking_checkpoint)]
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, "Why tides?", *models])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    output = capsys.readouterr().out
    ranking = SCORED_LINE.findall(output)
    scores = [float(score) for score, _ in ranking]
    assert output.startswith("Why tides?\n")
    assert len({page for _, page in ranking}) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
