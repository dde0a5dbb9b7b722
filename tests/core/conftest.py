"""Components of the small checkpoints, one pair for each module."""

from __future__ import annotations

from pathlib import Path

import pytest
from qwen3_rag import Embedder, Reranker


@pytest.fixture(scope="module")
def embedder(embedding_checkpoint: Path) -> Embedder:
    """In float32 on the CPU."""
    return Embedder(str(embedding_checkpoint), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def reranker(reranking_checkpoint: Path) -> Reranker:
    """In float32 on the CPU."""
    return Reranker(str(reranking_checkpoint), dtype="float32", device="cpu")
