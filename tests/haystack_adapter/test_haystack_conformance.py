"""The three components keep the contract of their kind."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from qwen3_rag.testing.event_loop import Gate
from qwen3_rag.testing.haystack import DocumentEmbedderContract, RankerContract, TextEmbedderContract
from qwen3_rag.testing.recording import holding


class _Held:
    def hold(self, adapter: Any) -> AbstractContextManager[Gate]:
        return holding(getattr(adapter, adapter.ready))


class TestTextEmbedder(_Held, TextEmbedderContract):
    component_class = Qwen3TextEmbedder

    @pytest.fixture(autouse=True)
    def _set_options(self, embedder_options: dict[str, Any]) -> None:
        self._options = embedder_options

    @property
    def component_params(self) -> dict[str, Any]:
        return self._options


class TestDocumentEmbedder(_Held, DocumentEmbedderContract):
    component_class = Qwen3DocumentEmbedder

    @pytest.fixture(autouse=True)
    def _set_options(self, embedder_options: dict[str, Any]) -> None:
        self._options = embedder_options

    @property
    def component_params(self) -> dict[str, Any]:
        return {**self._options, "progress_bar": False}


class TestRanker(_Held, RankerContract):
    component_class = Qwen3Ranker

    @pytest.fixture(autouse=True)
    def _set_options(self, ranker_options: dict[str, Any]) -> None:
        self._options = ranker_options

    @property
    def component_params(self) -> dict[str, Any]:
        return self._options
