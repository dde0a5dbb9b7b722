"""Layers take their rows in blocks, which write to the same memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.transformers import elementwise, layer
from qwen3_rag.backends.transformers.workspace import Workspace

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
TEXTS = ["gravity", "", "the capital of China is Beijing " * 9, "gravity is a force"]


def test_the_size_of_blocks_changes_no_vector_and_no_score(
    embedding_checkpoint: Path, reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Embedder(str(embedding_checkpoint), **OPTIONS) as embedder,
        Reranker(str(reranking_checkpoint), **OPTIONS) as reranker,
    ):
        vectors, scores = embedder.embed_documents(TEXTS), reranker.score("gravity", TEXTS)
        for rows in (1, 7, 64):
            monkeypatch.setattr(layer, "_CPU_ROWS", rows)
            monkeypatch.setattr(elementwise, "_CACHED_ELEMENTS", 70 * rows)
            np.testing.assert_allclose(embedder.embed_documents(TEXTS), vectors, rtol=0, atol=1e-6)
            np.testing.assert_allclose(reranker.score("gravity", TEXTS), scores, rtol=0, atol=1e-6)


def test_a_workspace_keeps_the_memory_of_a_name_and_gives_each_name_its_own() -> None:
    workspace, like = Workspace(), torch.zeros(0, dtype=torch.bfloat16)
    rows = workspace.take("rows", (4, 6), like)
    assert rows.dtype is torch.bfloat16
    assert workspace.take("rows", (2, 3, 4), like).data_ptr() == rows.data_ptr()
    assert workspace.take("rows", (0, 6), like).shape == (0, 6)
    others = workspace.take("others", (4, 6), like)
    rows.zero_()
    others.fill_(1)
    assert not rows.any()
    larger = workspace.take("rows", (5, 6), like)
    assert larger.shape == (5, 6)
    again = workspace.take("rows", (4, 6), like)  # what it had before is given up
    assert again.data_ptr() == larger.data_ptr()


def test_what_a_call_returned_is_not_overwritten_by_the_next(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), **OPTIONS) as embedder:
        first = embedder.embed_documents(TEXTS)
        before = first.copy()
        embedder.embed_documents(["another text", *TEXTS[::-1]])
    np.testing.assert_array_equal(first, before)
