"""The adapters pass langchain-tests' suites, unchanged, and our own contracts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
from langchain_core.documents import BaseDocumentCompressor
from langchain_core.embeddings import Embeddings
from langchain_cross_encoder import Qwen3CrossEncoder, needs_cross_encoders
from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from qwen3_rag import Embedder, Reranker
from qwen3_rag.testing.event_loop import Gate
from qwen3_rag.testing.langchain import (
    CrossEncoderContract,
    DocumentCompressorContract,
    EmbeddingsContract,
)
from qwen3_rag.testing.recording import holding


class _FromOptions:
    @pytest.fixture(autouse=True)
    def _set_options(self, embedding_options: dict[str, Any], embedder: Embedder) -> None:
        assert embedder.backend is not None  # so that the weights stay loaded between tests
        self.options = embedding_options

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3Embeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return self.options


class TestEmbeddingsUnit(_FromOptions, EmbeddingsUnitTests):
    pass


class TestEmbeddingsIntegration(_FromOptions, EmbeddingsIntegrationTests):
    pass


class TestEmbeddings(EmbeddingsContract):
    @pytest.fixture(autouse=True)
    def _set_embedder(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3Embeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"embedder": self.embedder}

    def hold(self, adapter: Qwen3Embeddings) -> AbstractContextManager[Gate]:
        return holding(adapter.embedder)


class _WithReranker:
    @pytest.fixture(autouse=True)
    def _set_reranker(self, reranker: Reranker) -> None:
        self.reranker = reranker

    def hold(self, adapter: Any) -> AbstractContextManager[Gate]:
        return holding(adapter.reranker)


class TestReranker(_WithReranker, DocumentCompressorContract):
    @property
    def compressor_class(self) -> type[BaseDocumentCompressor]:
        return Qwen3Reranker

    @property
    def compressor_params(self) -> dict[str, Any]:
        return {"reranker": self.reranker}


@needs_cross_encoders
class TestCrossEncoder(_WithReranker, CrossEncoderContract):
    @property
    def cross_encoder_class(self) -> Any:
        return Qwen3CrossEncoder

    @property
    def cross_encoder_params(self) -> dict[str, Any]:
        return {"reranker": self.reranker}
