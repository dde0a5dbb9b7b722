"""A ranker for Haystack that runs Qwen3-Reranker models."""

from haystack_integrations.components.rankers.qwen3_rag.ranker import Qwen3Ranker

__all__ = ["Qwen3Ranker"]
