"""The three components keep the contract of their kind."""

from __future__ import annotations

from typing import Any

import pytest
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from qwen3_rag.testing.haystack import DocumentEmbedderContract, RankerContract, TextEmbedderContract


class TestTextEmbedder(TextEmbedderContract):
    component_class = Qwen3TextEmbedder

    @pytest.fixture(autouse=True)
    def _set_options(self, embedder_options: dict[str, Any]) -> None:
        self._options = embedder_options

    @property
    def component_params(self) -> dict[str, Any]:
        return self._options


class TestDocumentEmbedder(DocumentEmbedderContract):
    component_class = Qwen3DocumentEmbedder

    @pytest.fixture(autouse=True)
    def _set_options(self, embedder_options: dict[str, Any]) -> None:
        self._options = embedder_options

    @property
    def component_params(self) -> dict[str, Any]:
        return {**self._options, "progress_bar": False}


class TestRanker(RankerContract):
    component_class = Qwen3Ranker

    @pytest.fixture(autouse=True)
    def _set_options(self, ranker_options: dict[str, Any]) -> None:
        self._options = ranker_options

    @property
    def component_params(self) -> dict[str, Any]:
        return self._options
