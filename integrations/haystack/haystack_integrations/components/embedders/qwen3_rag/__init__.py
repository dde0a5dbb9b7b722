"""Embedders for Haystack that run Qwen3-Embedding models."""

from haystack_integrations.components.embedders.qwen3_rag.document_embedder import Qwen3DocumentEmbedder
from haystack_integrations.components.embedders.qwen3_rag.text_embedder import Qwen3TextEmbedder

__all__ = ["Qwen3DocumentEmbedder", "Qwen3TextEmbedder"]
