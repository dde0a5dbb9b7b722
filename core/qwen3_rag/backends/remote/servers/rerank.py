"""Servers that rerank as Cohere's and Jina's do: query and documents in, `relevance_score` by index out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen3_rag.backends.remote.servers.answers import in_order, member, scores
from qwen3_rag.backends.remote.servers.base import (
    Call,
    Dialect,
    Setup,
    Values,
    joined_to_version,
    reranking_words,
)
from qwen3_rag.backends.remote.servers.text import (
    check_instruction,
    check_template,
    instruction_fields,
    query_and_document,
)
from qwen3_rag.tokens import Prompt


def cohere(setup: Setup) -> Dialect:
    """`POST {base_url}/rerank`, version 2 on a bare host."""
    return _reranking(setup, version="v2", extra={})


def jina(setup: Setup) -> Dialect:
    """`POST {base_url}/rerank`, version 1 on a bare host; documents are not sent back."""
    return _reranking(setup, version="v1", extra={"return_documents": False})


def _reranking(setup: Setup, *, version: str, extra: dict[str, Any]) -> Dialect:
    options = setup.options
    check_template(options)

    def call(prompts: Sequence[Prompt]) -> Call:
        def read(answer: Any) -> Values:
            items = member(answer, "results")
            found = in_order(items, len(prompts), index="index", value="relevance_score")
            return scores(found, are_probabilities=options.scores == "probability")

        parts = [query_and_document(reranking_words(prompt), options) for prompt in prompts]
        body = {
            "model": setup.model,
            "query": parts[0][0],
            "documents": [document for _, document in parts],
            "top_n": len(prompts),
            **extra,
            **instruction_fields(reranking_words(prompts[0]), options),
        }
        return Call(body, read)

    def group(prompt: Prompt) -> tuple[str, str]:
        words = reranking_words(prompt)
        return words.instruction, words.query

    def check(prompt: Prompt) -> None:
        check_instruction(reranking_words(prompt), options)

    endpoint = joined_to_version(setup, "/rerank", version=version)
    return Dialect(endpoint, call, max_inputs=100, max_tokens=32768, group=group, check=check)
