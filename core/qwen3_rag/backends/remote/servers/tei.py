"""Hugging Face Text Embeddings Inference (TEI).

By its source (main, July 2026), `/embed` accepts token ids, but decodes and encodes them again, which is not
exact, so it is sent text. It uses the checkpoint's tokenizer, which appends the closing `<|endoftext|>` itself
and recognises special tokens in the text; with `truncate: false` it refuses texts that are too long. Stock TEI
runs no Qwen3 reranker; builds that do answer `/rerank` as other rerankers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qwen3_rag.backends.remote.servers.answers import (
    check_count,
    could_be_probabilities,
    in_order,
    scores,
    settled,
    telling_input,
    vectors,
)
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
from qwen3_rag.backends.remote.servers.text import (
    check_no_template,
    check_template,
    instruction_check,
    instruction_fields,
    query_and_document,
    text_as_sent,
)
from qwen3_rag.tokens import Prompt

_MAX_INPUTS: Final = 32
"""TEI's own default of --max-client-batch-size."""

_MAX_TOKENS: Final = 16384
"""TEI's own default of --max-batch-tokens."""


def embedding(setup: Setup) -> Dialect:
    """`POST /embed` with text."""
    check_no_template(setup.options, "embedding has no template but the query's prompt, which we put in")
    as_sent = text_as_sent(setup.options)

    def request(prompts: Sequence[Prompt]) -> Request:
        def read(answer: Any) -> Values:
            check_count(answer, len(prompts))
            return vectors(answer, setup.hidden_size)

        words = [embedding_words(prompt) for prompt in prompts]
        texts = [as_sent(w.prompt + w.text) for w in words]
        return Request({"inputs": texts, "normalize": True, "truncate": False}, read)

    return Dialect(joined(setup, "/embed"), request, _MAX_INPUTS, _MAX_TOKENS)


def reranking(setup: Setup) -> Dialect:
    """`POST /rerank` with text; `raw_scores` are the log-odds.

    Other servers with this API ignore that (llama.cpp's, for one) and answer probabilities. If an answer could
    be either (all numbers between 0 and 1), one prompt's probability is requested.
    """
    check_template(setup.options)

    def request(prompts: Sequence[Prompt]) -> Request:
        parts = [query_and_document(reranking_words(prompt), setup.options) for prompt in prompts]
        fields = instruction_fields(reranking_words(prompts[0]), setup.options)
        texts = [document for _, document in parts]
        body = {"query": parts[0][0], "texts": texts, "raw_scores": True, "truncate": False, **fields}

        def read(answer: Any) -> Values | Request:
            found = _scores(answer, len(prompts))
            if not could_be_probabilities(found):
                return found
            telling = telling_input(found)

            def settle(second: Any) -> Values:
                return settled(found, telling, lambda: _scores(second, 1))

            one = {**body, "texts": [texts[telling]], "raw_scores": False}
            return Request(one, settle, tokens=len(prompts[telling].token_ids))

        return Request(body, read)

    endpoint = joined(setup, "/rerank")
    check = instruction_check(setup.options)
    return Dialect(endpoint, request, _MAX_INPUTS, _MAX_TOKENS, group=query_group, check=check)


def _scores(answer: Any, count: int) -> Values:
    found = in_order(answer, count, index="index", value="score", best_first=True)
    return scores(found, are_probabilities=False)
