"""Options of small components, and `Embedder` and `Reranker` with the same, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qwen3_rag import Embedder, Reranker


@pytest.fixture(scope="session")
def embedder_options(embedding_checkpoint: Path) -> dict[str, Any]:
    return {"model": str(embedding_checkpoint), "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="session")
def ranker_options(reranking_checkpoint: Path) -> dict[str, Any]:
    return {"model": str(reranking_checkpoint), "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="session")
def embedder(embedder_options: dict[str, Any]) -> Iterator[Embedder]:
    with Embedder(**embedder_options).load() as embedder:
        yield embedder


@pytest.fixture(scope="session")
def reranker(ranker_options: dict[str, Any]) -> Iterator[Reranker]:
    with Reranker(**ranker_options).load() as reranker:
        yield reranker
