"""A ranker for Haystack that runs Qwen3-Reranker models."""

from qwen3_rag.errors import MissingExtraError

try:
    from haystack_integrations.components.rankers.qwen3_rag.ranker import Qwen3Ranker
except ModuleNotFoundError as error:
    if error.name != "haystack":
        raise
    raise MissingExtraError("haystack_integrations.components.rankers.qwen3_rag", "haystack") from error

__all__ = ["Qwen3Ranker"]
