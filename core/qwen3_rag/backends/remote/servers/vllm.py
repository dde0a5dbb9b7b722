"""vLLM: sent exact token ids, so templates, cutting and special tokens are never left to the server.

Measured with vLLM 0.32. A server too old to know `use_activation` (0.15 knows it) ignores it and answers
probabilities. By its source (0.32 and older), `usage.prompt_tokens` counts the ids of all inputs, those
found in the prefix cache included; so does llama.cpp's. So an answer that tells of fewer or more than were sent
is not believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qwen3_rag.backends.remote.servers.answers import (
    check_finite,
    check_ids_were_computed,
    could_be_probabilities,
    in_order,
    member,
    numbers,
    only_class,
    settled,
    telling_input,
    vectors,
)
from qwen3_rag.backends.remote.servers.base import Dialect, Request, Setup, Values, joined
from qwen3_rag.backends.remote.servers.text import check_no_template
from qwen3_rag.tokens import Prompt

_WHO: Final = "vLLM gets token ids"
_MAX_INPUTS: Final = 128
_MAX_TOKENS: Final = 16384
"""Chosen, not tuned."""


def embedding(setup: Setup) -> Dialect:
    """`POST /v1/embeddings` with ids; vectors come back in base64, a quarter of the size of JSON numbers."""
    check_no_template(setup.options, _WHO)

    def request(prompts: Sequence[Prompt]) -> Request:
        ids = _ids(prompts)

        def read(answer: Any) -> Values:
            rows = in_order(member(answer, "data"), len(prompts), index="index", value="embedding")
            check_ids_were_computed(answer, sum(map(len, ids)))
            return vectors(rows, setup.hidden_size)

        body = {"model": setup.model, "input": ids, "encoding_format": "base64"}
        return Request(body, read)

    return Dialect(joined(setup, "/v1/embeddings"), request, _MAX_INPUTS, _MAX_TOKENS)


def reranking(setup: Setup) -> Dialect:
    """`POST /classify` with ids, asking for log-odds instead of probabilities.

    If an answer could be either (all numbers between 0 and 1), one prompt's probability is requested: that of
    the prompt for which the two readings differ most.
    """
    check_no_template(setup.options, _WHO)

    def request(prompts: Sequence[Prompt]) -> Request:
        ids = _ids(prompts)

        def read(answer: Any) -> Values | Request:
            found = _single_class(answer, len(prompts))
            check_ids_were_computed(answer, sum(map(len, ids)))
            if not could_be_probabilities(found):
                return found
            telling = telling_input(found)

            def settle(second: Any) -> Values:
                return settled(found, telling, lambda: _single_class(second, 1))

            body = {"model": setup.model, "input": [ids[telling]], "use_activation": True}
            return Request(body, settle, tokens=len(ids[telling]))

        return Request({"model": setup.model, "input": ids, "use_activation": False}, read)

    return Dialect(joined(setup, "/classify"), request, _MAX_INPUTS, _MAX_TOKENS)


def _single_class(answer: Any, count: int) -> Values:
    rows = in_order(member(answer, "data"), count, index="index", value="probs")
    found = numbers([only_class(row) for row in rows])
    check_finite(found)
    return found


def _ids(prompts: Sequence[Prompt]) -> list[list[int]]:
    return [prompt.token_ids.tolist() for prompt in prompts]
