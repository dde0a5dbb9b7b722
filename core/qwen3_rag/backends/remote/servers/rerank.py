"""Servers that rerank as Cohere's and Jina's do: query and documents in, `relevance_score` by index out.

Answers may have SGLang's form too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qwen3_rag.backends.remote.servers.answers import relevances, scores
from qwen3_rag.backends.remote.servers.base import (
    Dialect,
    Request,
    Setup,
    Values,
    joined_to_version,
    query_group,
    reranking_words,
)
from qwen3_rag.backends.remote.servers.text import (
    check_template,
    instruction_check,
    instruction_fields,
    query_and_document,
)
from qwen3_rag.tokens import Prompt

_MAX_INPUTS: Final = 100
_MAX_TOKENS: Final = 32768
"""Chosen, not tuned: many servers speak this dialect, and their limits differ."""


def cohere(setup: Setup) -> Dialect:
    """`POST {base_url}/rerank`, version 2 on a bare host."""
    return _reranking(setup, version="v2", extra={})


def jina(setup: Setup) -> Dialect:
    """`POST {base_url}/rerank`, version 1 on a bare host; documents are not sent back."""
    return _reranking(setup, version="v1", extra={"return_documents": False})


def _reranking(setup: Setup, *, version: str, extra: dict[str, Any]) -> Dialect:
    options = setup.options
    check_template(options)

    def request(prompts: Sequence[Prompt]) -> Request:
        def read(answer: Any) -> Values:
            found = relevances(answer, len(prompts))
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
        return Request(body, read)

    endpoint = joined_to_version(setup, "/rerank", version=version)
    check = instruction_check(options)
    return Dialect(endpoint, request, _MAX_INPUTS, _MAX_TOKENS, group=query_group, check=check)
