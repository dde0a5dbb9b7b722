"""`Qwen3Ranker`: documents by how well they answer a query."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from haystack import Document, component
from haystack_integrations.components.embedders.qwen3_rag.base import CoreComponent, Device
from haystack_integrations.components.embedders.qwen3_rag.documents import (
    check_meta_fields,
    check_separator,
    check_text,
    document_texts,
    own_documents,
    usage_meta,
)

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.inputs import as_float
from qwen3_rag.models import DEFAULT_RERANKING_MODEL
from qwen3_rag.ranking import best_first, check_top_k
from qwen3_rag.reranker import Reranker, Scores
from qwen3_rag.settings import DType, Hub


class _Limits(NamedTuple):
    """Which documents come back from a run."""

    top_k: int | None
    score_threshold: float | None


@component
class Qwen3Ranker(CoreComponent):
    """Ranks documents by how well they answer a query, with a Qwen3-Reranker model.

    The best comes first. A score is the model's probability, 0 to 1, that the document answers the query.
    """

    core_class = Reranker
    ready = "reranker"
    reranker: Reranker
    """The `Reranker` in use."""

    top_k: int | None
    score_threshold: float | None
    meta_fields_to_embed: list[str]
    embedding_separator: str

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = DEFAULT_RERANKING_MODEL,
        backend: str = "transformers",
        instruction: str | None = None,
        max_tokens: int = 8192,
        device: Device = None,
        dtype: DType = "auto",
        revision: str | None = None,
        hub: Hub = "huggingface",
        parse_special_tokens: bool = False,
        token_budget: int | None = None,
        share_prefixes: bool = True,
        timeout: float | None = None,
        max_wait_ms: float = 0.0,
        max_queued: int = 1024,
        model_kwargs: Mapping[str, Any] | None = None,
        reranker: Reranker | None = None,
        top_k: int | None = None,
        score_threshold: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        """Make a ranker, to stand behind a retriever or a joiner.

        Every document given is scored, also several of one id. Weights are loaded on first use or by `warm_up`,
        once per process for components of equal settings.

        Args:
            model: hub repository or local folder; a `pathlib.Path` is a folder, and kept as a string.
            backend: what runs the model; `qwen3-rag plugins` lists the names.
            instruction: task sentence, or a preset's name. None takes the published default.
            max_tokens: longest prompt, template included; longer documents are cut at their end, counted
                and warned of.
            device: name of a torch device, several of them, or Haystack's `ComponentDevice`; None takes the
                best there is.
            dtype: "auto" is bfloat16 where the hardware computes it, else float32.
            revision: branch, tag or commit of the hub repository.
            hub: "huggingface" or "modelscope".
            parse_special_tokens: recognise `<|im_end|>` and the like inside your texts. Leave it False for text
                that you did not write yourself: such a text could answer for the model.
            token_budget: most tokens of one batch; None derives it from free memory.
            share_prefixes: compute template, instruction and query once for all documents.
            timeout: most seconds that a run may take, loading included; None for no limit.
            max_wait_ms: milliseconds that a batch which is not full waits for other calls to join it.
            max_queued: calls, or pieces of up to 512 texts, that may wait or run; further ones wait for
                room.
            model_kwargs: further arguments for the backend's loader. The remote backend's `api_key` is a
                Haystack `Secret`; no other backend looks for one.
            reranker: a ready `qwen3_rag.Reranker` to use instead of making one; excludes the arguments above,
                and is never closed by this component.
            top_k: most documents to return, 0 or more; None for all.
            score_threshold: least score to return, 0 to 1; None for no limit.
            meta_fields_to_embed: meta values to put before the content. One that is missing or None is left
                out.
            embedding_separator: stands between meta values and content.

        Raises:
            ConfigurationError: an argument is out of range, or stands beside `reranker`.
            TypeError: an argument is of a wrong type.
        """
        top_k = check_top_k(top_k)
        score_threshold = _threshold(score_threshold)
        meta_fields_to_embed = check_meta_fields(meta_fields_to_embed)
        check_separator(embedding_separator)
        self._start(locals())

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, Any]:
        """Return the documents best first, equal scores in the order given.

        Args:
            query: the question or search text; never cut.
            documents: any number of documents; never changed. One without content and without chosen meta
                values is scored as the empty text.
            top_k: overrides the constructor's; None takes it.
            score_threshold: overrides the constructor's, 0 to 1; None takes it, 0.0 lets every document
                through.

        Returns:
            `documents`, copies with `score` set to P(yes) in [0, 1], and `meta` with `model` and `usage`.
            Nothing is loaded or computed for no documents, or for `top_k=0`.

        Raises:
            TypeError: an argument is of a wrong type.
            ConfigurationError: `top_k` or `score_threshold` is out of range, wherever it was given.
            PromptTooLongError: template, instruction and query leave no room for a document.
            CheckpointError: the model cannot be loaded.
            DeadlineExceededError: it took longer than `timeout`.
            NonFiniteOutputError: the model returned NaN for a document.
            OutOfMemoryError: a document alone does not fit into memory.
        """
        limits = self._limits(top_k, score_threshold)
        documents = own_documents(documents)
        pairs = self._pairs(query, documents, limits)
        return self._response(documents, self.reranker.evaluate(pairs), limits)

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, Any]:
        """`run` without blocking the event loop; concurrent calls share batches.

        Args:
            query, documents, top_k, score_threshold: as `run`.
        """
        limits = self._limits(top_k, score_threshold)
        documents = own_documents(documents)
        pairs = self._pairs(query, documents, limits)
        return self._response(documents, await self.reranker.aevaluate(pairs), limits)

    def _limits(self, top_k: int | None, score_threshold: float | None) -> _Limits:
        """Return the limits of a run, checked before anything is computed: attributes may be assigned."""
        return _Limits(
            check_top_k(self.top_k if top_k is None else top_k),
            _threshold(self.score_threshold if score_threshold is None else score_threshold),
        )

    def _pairs(self, query: str, documents: Sequence[Document], limits: _Limits) -> list[tuple[str, str]]:
        """Return what to score; nothing when the result is empty anyway."""
        check_text("query", query, "run the ranker once per query")
        texts = document_texts(documents, self.meta_fields_to_embed, self.embedding_separator)
        return [] if limits.top_k == 0 else [(query, text) for text in texts]

    def _response(self, documents: Sequence[Document], result: Scores, limits: _Limits) -> dict[str, Any]:
        ranked = _ranked(documents, result, limits)
        return {"documents": ranked, "meta": usage_meta(self.model, result.usage)}


def _threshold(given: float | None) -> float | None:
    if given is None:
        return None
    meaning = "a number, 0 to 1, or None for no limit"
    threshold = as_float("score_threshold", given, meaning)
    if not 0 <= threshold <= 1:
        raise ConfigurationError(f"score_threshold must be {meaning}, got {threshold}")
    return threshold


def _ranked(documents: Sequence[Document], result: Scores, limits: _Limits) -> list[Document]:
    """Return scored copies, best first, those below the threshold left out."""
    scores: list[float] = result.scores.tolist()
    # dataclasses.replace alone would leave copy and original with one meta dictionary.
    return [
        replace(documents[i], score=scores[i], meta=dict(documents[i].meta))
        for i in best_first(result.scores, limits.top_k)
        if limits.score_threshold is None or scores[i] >= limits.score_threshold
    ]
