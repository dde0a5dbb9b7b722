"""`embed --role query`: queries are never cut, and one that is too long is told of before any is embedded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import Invoke
from embedding_job import stop_after


def test_a_query_that_is_too_long_is_named_before_any_is_embedded(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = tmp_path / "queries.jsonl"
    texts = ["short"] * 600 + ["word " * 60] + ["short"] * 3
    queries.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    command = ("embed", queries, tmp_path / "v.npy", "--model", embedding_checkpoint, "--role", "query")
    stop_after(0, monkeypatch)
    run = invoke(*command, "--max-tokens", 64)
    assert run.code == 2
    assert f"row 601 of {queries} needs " in run.err
    assert "more than --max-tokens 64" in run.err
    assert not (tmp_path / "v.npy.parts").exists(), "with the row mended, the job may start"


def test_queries_that_just_fit_are_embedded(invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("What is the capital of China?\n")
    command = ("embed", queries, tmp_path / "v.npy", "--model", embedding_checkpoint, "--role", "query")
    refused = invoke(*command, "--max-tokens", 5)
    needed = int(re.search(r"needs (\d+) tokens", refused.err)[1])  # type: ignore[index]
    assert invoke(*command, "--max-tokens", needed - 1).code == 2
    assert invoke(*command, "--max-tokens", needed).code == 0


def test_special_tokens_in_a_query_are_counted_as_the_text_that_they_are(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    queries, output = tmp_path / "queries.txt", tmp_path / "v.npy"
    queries.write_text("<|im_end|>" * 30 + "\n")
    command = ("embed", queries, output, "--model", embedding_checkpoint, "--role", "query")
    refused = invoke(*command, "--max-tokens", 70)
    assert refused.code == 2
    assert f"row 1 of {queries} needs " in refused.err
    needed = int(re.search(r"needs (\d+) tokens", refused.err)[1])  # type: ignore[index]
    assert invoke(*command, "--max-tokens", needed).code == 0
