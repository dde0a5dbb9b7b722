"""Adapters on the small checkpoints. They share two components: opening a tokenizer takes a second."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import Embedder, Reranker


@pytest.fixture(scope="session")
def embedder(embedding_checkpoint: Path) -> Embedder:
    return Embedder(str(embedding_checkpoint), dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def reranker(reranking_checkpoint: Path) -> Reranker:
    return Reranker(str(reranking_checkpoint), dtype="float32", device="cpu")


@pytest.fixture
def embedding(embedder: Embedder) -> Qwen3Embedding:
    return Qwen3Embedding(embedder=embedder)


@pytest.fixture
def rerank(reranker: Reranker) -> Qwen3Rerank:
    return Qwen3Rerank(reranker=reranker, top_n=None)
