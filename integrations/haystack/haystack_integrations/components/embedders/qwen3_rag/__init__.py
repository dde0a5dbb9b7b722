"""Embedders for Haystack that run Qwen3-Embedding models."""

from qwen3_rag.errors import MissingExtraError

try:
    from haystack_integrations.components.embedders.qwen3_rag.document_embedder import Qwen3DocumentEmbedder
    from haystack_integrations.components.embedders.qwen3_rag.text_embedder import Qwen3TextEmbedder
except ModuleNotFoundError as error:
    if error.name != "haystack":
        raise
    raise MissingExtraError("haystack_integrations.components.embedders.qwen3_rag", "haystack") from error

__all__ = ["Qwen3DocumentEmbedder", "Qwen3TextEmbedder"]
