"""`Qwen3CrossEncoder`: LangChain's `BaseCrossEncoder`."""

from __future__ import annotations

from types import MappingProxyType

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_qwen3_rag.options import RerankerOptions


class Qwen3CrossEncoder(RerankerOptions, BaseCrossEncoder):
    """Scores (query, document) pairs with a Qwen3-Reranker model.

    For code that takes a `BaseCrossEncoder`, such as `CrossEncoderReranker`. `Qwen3Reranker` does
    more: it keeps scores, and its async path shares batches without a thread per call.

    Args:
        model: hub repository or local folder; a `pathlib.Path` is a folder, and kept as a string.
        reranker: a ready `qwen3_rag.Reranker` to use instead of making one; excludes the core's
            options, and is never closed by this object. The attribute holds the one in use, given or not.

    The core's options (`backend`, `instruction`, `max_tokens`, `device`, `dtype`, `revision`, `hub`,
    `parse_special_tokens`, `token_budget`, `share_prefixes`, `timeout`, `max_wait_ms`, `max_queued`,
    `model_kwargs`) are as for `qwen3_rag.Reranker`.

    Raises:
        ConfigurationError: an option is unknown or out of range, or clashes with `reranker`.
        pydantic.ValidationError: an option is of a wrong type.
    """

    twins = MappingProxyType({"score": "ascore"})

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score pairs; pairs of one query share its computation wherever they stand.

        Args:
            text_pairs: (query, document) strings; never changed.

        Returns:
            P(yes) in [0, 1] for each pair, in order.

        Raises:
            TypeError: a pair is not two strings (the message names its index).
            PromptTooLongError: template, instruction and a query leave no room for a document.
            CheckpointError: the model cannot be loaded.
            DeadlineExceededError: it took longer than `timeout`.
            NonFiniteOutputError: the model returned NaN for a pair.
            OutOfMemoryError: a pair alone does not fit into memory.
        """
        scores: list[float] = self.reranker.score_pairs(text_pairs).tolist()
        return scores

    async def ascore(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """`score` without blocking the event loop; concurrent calls share batches.

        Args:
            text_pairs: as `score`.
        """
        scores: list[float] = (await self.reranker.ascore_pairs(text_pairs)).tolist()
        return scores
