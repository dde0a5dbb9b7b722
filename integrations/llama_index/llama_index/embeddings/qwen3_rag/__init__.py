"""Qwen3-Embedding for LlamaIndex."""

from qwen3_rag.errors import MissingExtraError

try:
    from llama_index.embeddings.qwen3_rag.base import Qwen3Embedding
except ModuleNotFoundError as error:
    if error.name not in ("llama_index.core", "pydantic"):
        raise
    raise MissingExtraError("llama_index.embeddings.qwen3_rag", "llama-index") from error

__all__ = ["Qwen3Embedding"]
