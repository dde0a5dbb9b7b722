"""Qwen3-Reranker for LlamaIndex."""

from llama_index.postprocessor.qwen3_rag.base import Qwen3Rerank

__all__ = ["Qwen3Rerank"]
