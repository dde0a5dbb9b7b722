"""Qwen3-Embedding for LlamaIndex."""

from llama_index.embeddings.qwen3_rag.base import Qwen3Embedding

__all__ = ["Qwen3Embedding"]
