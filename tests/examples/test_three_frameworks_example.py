"""The three-framework example runs as a user would run it, and the frameworks agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = ["LangChain", "LlamaIndex", "Haystack"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "three_frameworks.py"


def test_example_prints_the_same_ranking_three_times(reranking_checkpoint: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "Who bakes?", "--reranker", str(reranking_checkpoint)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    query, *lines = run.stdout.splitlines()
    assert query == "Who bakes?"
    rankings = {name: [line.split(maxsplit=1)[1] for line in lines if line.startswith(name)] for name in NAMES}
    assert len(rankings["LangChain"]) == 3
    assert rankings["LangChain"] == rankings["LlamaIndex"] == rankings["Haystack"]
