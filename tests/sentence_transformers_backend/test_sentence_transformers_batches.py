"""Batches stay within their budget or are halved, and a closed model is freed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder, OutOfMemoryError
from qwen3_rag.backends.device.memory import CPU_TOKEN_BUDGET, MIN_TOKEN_BUDGET
from qwen3_rag.backends.sentence_transformers import backend, create
from qwen3_rag.settings import EngineSettings
from sum_backend import ids

OPTIONS: dict[str, Any] = {"backend": "sentence-transformers", "dtype": "float32", "device": "cpu"}


def test_padded_batches_fill_the_budget_longest_first_and_do_not_exceed_it(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), token_budget=100, **OPTIONS).load()
    backend: Any = embedder.backend
    assert backend.token_budget == 100
    forward, batches = backend._forward, []

    def noting(prompts: list[Any]) -> Any:
        batches.append([len(prompt.token_ids) for prompt in prompts])
        return forward(prompts)

    backend._forward = noting
    lengths = [30, 120, 50, 10, 40, 30, 50, 20]
    output = backend.run([ids(*range(1, length + 1)) for length in lengths])
    assert batches == [[120], [50, 50], [40, 30], [30, 20, 10]]
    assert output.computed.tolist() == lengths, "padding is not counted"


def test_without_a_budget_one_is_derived_from_memory(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), **OPTIONS).load() as embedder:
        assert MIN_TOKEN_BUDGET <= embedder.backend.token_budget <= CPU_TOKEN_BUDGET


def test_a_batch_that_does_not_fit_is_halved_and_one_text_that_does_not_is_an_error(
    embedding_checkpoint: Path,
) -> None:
    texts = [f"text number {i}" for i in range(7)]
    embedder = Embedder(str(embedding_checkpoint), **OPTIONS).load()
    right = embedder.embed_documents(texts)
    backend: Any = embedder.backend
    forward, largest = backend._forward, 2

    def short_of_memory(prompts: list[Any]) -> Any:
        if len(prompts) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(prompts)

    backend._forward = short_of_memory
    np.testing.assert_allclose(embedder.embed_documents(texts), right, atol=1e-5)
    largest = 0
    with pytest.raises(OutOfMemoryError, match="does not fit"):
        embedder.embed_documents(texts)


def test_close_frees_the_model_and_all_uses_of_a_device_take_their_turn(
    embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[str, str]] = []

    def noting(step: str) -> Callable[..., Any]:
        def noted(device: str, work: Callable[[], Any] = lambda: None) -> Any:
            if threading.current_thread() is threading.main_thread():  # others close what other tests left open
                taken.append((step, device))
            return work()

        return noted

    steps = ("load", "register", "compute", "unregister")
    monkeypatch.setattr(backend, "exclusive", SimpleNamespace(**{step: noting(step) for step in steps}))
    made = create(EngineSettings("embedding", str(embedding_checkpoint), dtype="float32", device="cpu"))
    assert made.concurrency == 1
    assert made.run([]).values.size == 0
    for _ in range(2):
        made.close()
    assert made._loaded is None
    assert taken == [(step, "cpu") for step in steps]
