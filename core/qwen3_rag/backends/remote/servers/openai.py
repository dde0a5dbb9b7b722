"""Any server with OpenAI's `/v1/embeddings`, given text. Its tokenizer appends `<|endoftext|>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen3_rag.backends.remote.servers.answers import in_order, member, vectors
from qwen3_rag.backends.remote.servers.base import (
    Call,
    Dialect,
    Setup,
    Values,
    embedding_words,
    joined_to_version,
)
from qwen3_rag.backends.remote.servers.text import check_no_template, user_text
from qwen3_rag.tokens import Prompt


def embedding(setup: Setup) -> Dialect:
    """`POST {base_url}/embeddings` with text.

    Neither `dimensions`, which many servers refuse, nor base64, which many do not know, is asked for.
    """
    check_no_template(setup.options, "embedding has no template but the query's prompt, which we put in")
    mend = user_text(setup.options)

    def call(prompts: Sequence[Prompt]) -> Call:
        def read(answer: Any) -> Values:
            rows = in_order(member(answer, "data"), len(prompts), index="index", value="embedding")
            return vectors(rows, setup.hidden_size)

        words = [embedding_words(prompt) for prompt in prompts]
        return Call({"model": setup.model, "input": [mend(w.prompt + w.text) for w in words]}, read)

    endpoint = joined_to_version(setup, "/embeddings", version="v1")
    return Dialect(endpoint, call, max_inputs=64, max_tokens=16384)
