"""What opening the remote backend reads, and what it settles."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from qwen3_rag import Embedder
from server import Answer, Server, fail

Serve = Callable[[Answer], Server]
Make = Callable[..., Embedder]


def test_no_weights_are_downloaded_for_a_model_that_a_server_runs(
    embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns: list[str] = []

    def download(_: str, *, allow_patterns: list[str], **__: Any) -> str:
        patterns.extend(allow_patterns)
        return str(embedding_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    kwargs = {"server": "vllm", "base_url": "http://localhost"}
    with Embedder("somebody/qwen3-embedding", backend="remote", model_kwargs=kwargs) as embedder:
        embedder.load()
    for name, is_needed in {"tokenizer.json": True, "model.safetensors": False, "model.bin": False}.items():
        assert any(fnmatch(name, pattern) for pattern in patterns) == is_needed, name


@pytest.mark.parametrize(("limit", "budget"), [(1, 1), (9, 8), (900, 800)])
def test_a_run_fills_one_request_and_has_a_token_at_least(limit: int, budget: int, embedder: Make) -> None:
    backend = embedder("http://localhost", max_tokens_per_request=limit).load().backend
    assert backend is not None
    assert backend.token_budget == budget


def test_a_token_budget_that_was_given_is_kept(embedding_folder: Path) -> None:
    kwargs = {"server": "vllm", "base_url": "http://localhost"}
    with Embedder(str(embedding_folder), backend="remote", token_budget=77, model_kwargs=kwargs) as embedder:
        backend = embedder.load().backend
    assert backend is not None
    assert backend.token_budget == 77


def test_a_run_of_no_prompts_asks_nobody(serve: Serve, embedder: Make) -> None:
    backend = embedder(serve(lambda _: fail("nothing to ask for")).url).load().backend
    assert backend is not None
    output = backend.run([])
    assert (len(output.values), len(output.computed)) == (0, 0)
