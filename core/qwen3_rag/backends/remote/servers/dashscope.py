"""Alibaba Cloud's Model Studio (DashScope). It serves its own versions of the models (text-embedding-v4,
qwen3-rerank, ...), takes text, and applies its templates itself.

An embedding request takes 10 texts of 8,192 tokens, by the service's API reference (June 2026). Rerankers
differ in where and how they are asked, in how many documents a request takes, and in how many tokens of a query
or document they read; the rest they drop silently: see `_RERANKERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qwen3_rag.backends.remote.servers.answers import in_order, member, relevances, scores, vectors
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
from qwen3_rag.backends.remote.servers.text import check_no_template, text_as_sent
from qwen3_rag.errors import PromptTooLongError
from qwen3_rag.prompts import EmbeddingWords, query_prompt
from qwen3_rag.tokens import Prompt

_EMBEDDING_PATH: Final = "/api/v1/services/embeddings/text-embedding/text-embedding"
_RERANKING_PATH: Final = "/api/v1/services/rerank/text-rerank/text-rerank"
_FLAT_RERANKING_PATH: Final = "/compatible-api/v1/reranks"
_BASE_PATH: Final = re.compile(r"/(api|compatible-mode|compatible-api)/v\d+$")
"""What the base URLs of DashScope's and of OpenAI's clients have after the service's host."""

_MAX_INPUTS: Final = 10
_MAX_TOKENS: Final = _MAX_INPUTS * 8192
_MAX_RERANK_TOKENS: Final = 30_000
"""The context of `qwen3-rerank` by its model page; by the API reference a request takes 120,000."""
_WHO: Final = "DashScope applies its own template"
_BEFORE_INSTRUCTION, _AFTER_INSTRUCTION = query_prompt("\0").split("\0")


@dataclass(frozen=True)
class _Reranker:
    """How a reranker is asked, and its limits.

    Attributes:
        documents: most of a request.
        most_of_one: tokens that it reads of a query or document; it drops the rest.
        is_flat: whether its API is the flat one beside the native API.
    """

    documents: int
    most_of_one: int
    is_flat: bool = False


_RERANKERS: Final = {
    "qwen3-rerank": _Reranker(500, 4000, is_flat=True),
    "qwen3-vl-rerank": _Reranker(100, 8000),
}
"""By https://www.alibabacloud.com/help/en/model-studio/text-rerank-api and, for the flat API,
https://docs.qwencloud.com/api-reference/rerank/openai-rerank (June 2026)."""

_ANY_RERANKER: Final = _Reranker(
    min(reranker.documents for reranker in _RERANKERS.values()),
    min(reranker.most_of_one for reranker in _RERANKERS.values()),
)
"""For a model that is not known here: the native API, which newer models have too."""


def embedding(setup: Setup) -> Dialect:
    """Queries go as `text_type: query` with `instruct`, documents as `text_type: document`.

    A query with another prompt than Qwen3's (one saved with a fine-tuned checkpoint) goes as a document, so
    that the service adds no prompt of its own.
    """
    check_no_template(setup.options, _WHO)
    as_sent = text_as_sent(setup.options)

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
            texts = [as_sent(w.prompt + w.text) for w in words]
        else:
            parameters |= {"text_type": "query", "instruct": as_sent(instruction)}
            texts = [as_sent(w.text) for w in words]
        return Request({"model": setup.model, "input": {"texts": texts}, "parameters": parameters}, read)

    def group(prompt: Prompt) -> Hashable:
        return _instruction(embedding_words(prompt))

    endpoint = _endpoint(setup, _EMBEDDING_PATH)
    return Dialect(endpoint, request, max_inputs=_MAX_INPUTS, max_tokens=_MAX_TOKENS, group=group)


def reranking(setup: Setup) -> Dialect:
    """The service renders the template; the instruction goes into `instruct`.

    What the service would cut is refused here: texts are cut in one place, and counted in `Usage`.
    """
    check_no_template(setup.options, _WHO)
    as_sent = text_as_sent(setup.options)
    reranker = _RERANKERS.get(setup.model, _ANY_RERANKER)

    def request(prompts: Sequence[Prompt]) -> Request:
        def read(answer: Any) -> Values:
            found = relevances(answer if reranker.is_flat else member(answer, "output"), len(prompts))
            return scores(found, are_probabilities=True)

        words = [reranking_words(prompt) for prompt in prompts]
        texts = {"query": as_sent(words[0].query), "documents": [as_sent(w.document) for w in words]}
        parameters = {"top_n": len(prompts), "instruct": as_sent(words[0].instruction)}
        if reranker.is_flat:
            return Request({"model": setup.model, **texts, **parameters}, read)
        parameters["return_documents"] = False
        return Request({"model": setup.model, "input": texts, "parameters": parameters}, read)

    return Dialect(
        _endpoint(setup, _FLAT_RERANKING_PATH if reranker.is_flat else _RERANKING_PATH),
        request,
        max_inputs=reranker.documents,
        max_tokens=_MAX_RERANK_TOKENS,
        group=query_group,
        check=_length_check(setup, reranker.most_of_one),
    )


def _length_check(setup: Setup, most: int) -> Callable[[Prompt], None]:
    """Return `Dialect.check`: it refuses prompts whose query or document has more than `most` tokens."""
    as_sent = text_as_sent(setup.options)
    assumed = "" if setup.model in _RERANKERS else " (assumed: this model's limits are not known here)"

    def check(prompt: Prompt) -> None:
        words = reranking_words(prompt)
        for what, text in (("query", words.query), ("document", words.document)):
            sent = as_sent(text)
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

    return check


def _instruction(words: EmbeddingWords) -> str | None:
    """Return the instruction of a query with Qwen3's own prompt; None for everything else."""
    prompt = words.prompt
    if not words.is_query or not prompt.startswith(_BEFORE_INSTRUCTION):
        return None
    if not prompt.endswith(_AFTER_INSTRUCTION):
        return None
    return prompt[len(_BEFORE_INSTRUCTION) : -len(_AFTER_INSTRUCTION)]


def _endpoint(setup: Setup, path: str) -> Callable[[str], str]:
    """Like `joined`, but accepts the base URLs of other clients of the service too, which have a path."""
    end = joined(setup, path)
    return end if setup.options.path is not None else lambda base_url: end(_BASE_PATH.sub("", base_url))
