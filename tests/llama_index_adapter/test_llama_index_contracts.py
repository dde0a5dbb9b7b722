"""Our adapters keep the contracts of LlamaIndex adapters."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import Embedder, Reranker
from qwen3_rag.testing.event_loop import Gate
from qwen3_rag.testing.llama_index import EmbeddingContract, RerankContract
from qwen3_rag.testing.recording import holding


class TestQwen3Embedding(EmbeddingContract):
    @pytest.fixture(autouse=True)
    def component(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @property
    def embedding_class(self) -> type[Qwen3Embedding]:
        return Qwen3Embedding

    @property
    def embedding_params(self) -> dict[str, Any]:
        return {"embedder": self.embedder}

    def hold(self, adapter: Qwen3Embedding) -> AbstractContextManager[Gate]:
        return holding(adapter.embedder)


class TestQwen3Rerank(RerankContract):
    @pytest.fixture(autouse=True)
    def component(self, reranker: Reranker) -> None:
        self.reranker = reranker

    @property
    def rerank_class(self) -> type[Qwen3Rerank]:
        return Qwen3Rerank

    @property
    def rerank_params(self) -> dict[str, Any]:
        return {"reranker": self.reranker}

    def hold(self, adapter: Qwen3Rerank) -> AbstractContextManager[Gate]:
        return holding(adapter.reranker)
