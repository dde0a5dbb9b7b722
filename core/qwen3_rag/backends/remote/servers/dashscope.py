"""Alibaba Cloud's Model Studio by its native DashScope API. It serves its own versions of the models
(text-embedding-v4, qwen3-rerank, ...), takes text, and applies its templates itself.

An embedding request takes 10 texts of 8,192 tokens, by the service's API reference (June 2026). Rerankers
differ in how many documents a request takes, and in how many tokens of a query or document they read; the rest
they drop silently: see `_RERANKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qwen3_rag.backends.remote.servers.answers import in_order, member, scores, vectors
from qwen3_rag.backends.remote.servers.base import (
    Dialect,
    Request,
    Setup,
    Values,
    embedding_words,
    joined,
    query_group,
    reranking_words,
)
from qwen3_rag.backends.remote.servers.text import check_no_template, user_text
from qwen3_rag.errors import PromptTooLongError
from qwen3_rag.prompts import EmbeddingWords, query_prompt
from qwen3_rag.tokens import Prompt

_ROOT: Final = "/api/v1/services"
_MAX_INPUTS: Final = 10
_MAX_TOKENS: Final = _MAX_INPUTS * 8192
_MAX_RERANK_TOKENS: Final = 30_000
"""That of `gte-rerank-v2`. Of the others it is 120,000 by the reference; of `qwen3-rerank` it was 30,000."""
_WHO: Final = "DashScope applies its own template"
_BEFORE_INSTRUCTION, _AFTER_INSTRUCTION = query_prompt("\0").split("\0")


@dataclass(frozen=True)
class _Limits:
    """A reranker's: documents of a request, and tokens of a query or document, of which it drops the rest."""

    documents: int
    most_of_one: int


_RERANKERS: Final = {
    "qwen3-rerank": _Limits(500, 4000),
    "gte-rerank-v2": _Limits(500, 4000),
    "qwen3-vl-rerank": _Limits(100, 8000),
}
"""By https://www.alibabacloud.com/help/en/model-studio/text-rerank-api, June 2026."""

_ANY_RERANKER: Final = _Limits(
    min(limits.documents for limits in _RERANKERS.values()),
    min(limits.most_of_one for limits in _RERANKERS.values()),
)
"""For a model whose limits are not known here."""


def embedding(setup: Setup) -> Dialect:
    """Queries go as `text_type: query` with `instruct`, documents as `text_type: document`.

    A query with another prompt than Qwen3's (one saved with a fine-tuned checkpoint) goes as a document, so
    that the service adds no prompt of its own.
    """
    check_no_template(setup.options, _WHO)
    mend = user_text(setup.options)

    def request(prompts: Sequence[Prompt]) -> Request:
        def read(answer: Any) -> Values:
            items = member(answer, "output", "embeddings")
            return vectors(
                in_order(items, len(prompts), index="text_index", value="embedding"), setup.hidden_size
            )

        words = [embedding_words(prompt) for prompt in prompts]
        instruction = _instruction(words[0])
        parameters: dict[str, Any] = {"dimension": setup.hidden_size}
        if instruction is None:
            parameters["text_type"] = "document"
            texts = [mend(w.prompt + w.text) for w in words]
        else:
            parameters |= {"text_type": "query", "instruct": mend(instruction)}
            texts = [mend(w.text) for w in words]
        return Request({"model": setup.model, "input": {"texts": texts}, "parameters": parameters}, read)

    def group(prompt: Prompt) -> Hashable:
        return _instruction(embedding_words(prompt))

    endpoint = _endpoint(setup, f"{_ROOT}/embeddings/text-embedding/text-embedding")
    return Dialect(endpoint, request, max_inputs=_MAX_INPUTS, max_tokens=_MAX_TOKENS, group=group)


def reranking(setup: Setup) -> Dialect:
    """The service renders the template; the instruction goes into `instruct`.

    What the service would cut is refused here: texts are cut in one place, and counted in `Usage`.
    """
    check_no_template(setup.options, _WHO)
    mend = user_text(setup.options)
    limits = _RERANKERS.get(setup.model, _ANY_RERANKER)
    most = limits.most_of_one
    assumed = "" if setup.model in _RERANKERS else " (assumed: this model's limits are not known here)"

    def request(prompts: Sequence[Prompt]) -> Request:
        def read(answer: Any) -> Values:
            items = member(answer, "output", "results")
            found = in_order(items, len(prompts), index="index", value="relevance_score")
            return scores(found, are_probabilities=True)

        words = [reranking_words(prompt) for prompt in prompts]
        texts = {"query": mend(words[0].query), "documents": [mend(w.document) for w in words]}
        parameters = {
            "top_n": len(prompts),
            "return_documents": False,
            "instruct": mend(words[0].instruction),
        }
        return Request({"model": setup.model, "input": texts, "parameters": parameters}, read)

    def check(prompt: Prompt) -> None:
        words = reranking_words(prompt)
        for what, text in (("query", words.query), ("document", words.document)):
            sent = mend(text)
            if sent == text and len(prompt.token_ids) <= most:
                continue  # a part of the prompt, so it has fewer tokens
            tokens = setup.count_tokens(sent)
            if tokens > most:
                cut = f"give max_tokens={most} or less, and it is cut here, which Usage counts"
                raise PromptTooLongError(
                    f"the {what} of pair {prompt.index} has {tokens} tokens, of which DashScope's "
                    f"{setup.model} reads {most} and drops the rest without a word{assumed}; "
                    + ("shorten it" if what == "query" else cut)
                )

    endpoint = _endpoint(setup, f"{_ROOT}/rerank/text-rerank/text-rerank")
    return Dialect(
        endpoint,
        request,
        max_inputs=limits.documents,
        max_tokens=_MAX_RERANK_TOKENS,
        group=query_group,
        check=check,
    )


def _instruction(words: EmbeddingWords) -> str | None:
    """Return the instruction of a query with Qwen3's own prompt; None for everything else."""
    prompt = words.prompt
    if not words.is_query or not prompt.startswith(_BEFORE_INSTRUCTION):
        return None
    if not prompt.endswith(_AFTER_INSTRUCTION):
        return None
    return prompt[len(_BEFORE_INSTRUCTION) : -len(_AFTER_INSTRUCTION)]


def _endpoint(setup: Setup, path: str) -> Callable[[str], str]:
    """Like `joined`, but accepts `.../api/v1` too, the base URL of DashScope's own clients."""
    end = joined(setup, path)
    return lambda base_url: end(base_url.removesuffix("/api/v1"))
