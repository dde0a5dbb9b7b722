"""The Haystack example runs as a user would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("haystack")

EXAMPLE = Path(__file__).parents[2] / "examples" / "haystack_rag.py"


def test_example_prints_a_ranking(embedding_checkpoint: Path, reranking_checkpoint: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "How long does light take?"]
    models = ["--model", str(embedding_checkpoint), "--reranker", str(reranking_checkpoint)]
    run = subprocess.run([*command, *models], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    query, *ranking, usage = run.stdout.splitlines()
    assert query == "How long does light take?"
    assert [line.split(". ")[0] for line in ranking] == ["1", "2", "3"]
    scores = [float(line.split()[1]) for line in ranking]
    assert scores == sorted(scores, reverse=True)
    assert usage.endswith("tokens were reranked")
