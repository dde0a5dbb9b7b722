"""Any server with OpenAI's `/v1/embeddings`, sent text. Its tokenizer has to append `<|endoftext|>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qwen3_rag.backends.remote.servers.answers import in_order, member, vectors
from qwen3_rag.backends.remote.servers.base import (
    Dialect,
    Request,
    Setup,
    Values,
    embedding_words,
    joined_to_version,
)
from qwen3_rag.backends.remote.servers.text import check_no_template, text_as_sent
from qwen3_rag.tokens import Prompt

_MAX_INPUTS: Final = 64
_MAX_TOKENS: Final = 16384
"""Chosen, not tuned: many servers speak this dialect, and their limits differ."""


def embedding(setup: Setup) -> Dialect:
    """`POST {base_url}/embeddings` with text.

    `dimensions` is not sent, since many servers refuse it, nor a request for base64, which many do not support.
    """
    check_no_template(setup.options, "embedding has no template but the query's prompt, which we put in")
    as_sent = text_as_sent(setup.options)

    def request(prompts: Sequence[Prompt]) -> Request:
        def read(answer: Any) -> Values:
            rows = in_order(member(answer, "data"), len(prompts), index="index", value="embedding")
            return vectors(rows, setup.hidden_size)

        words = [embedding_words(prompt) for prompt in prompts]
        return Request({"model": setup.model, "input": [as_sent(w.prompt + w.text) for w in words]}, read)

    endpoint = joined_to_version(setup, "/embeddings", version="v1")
    return Dialect(endpoint, request, _MAX_INPUTS, _MAX_TOKENS)
