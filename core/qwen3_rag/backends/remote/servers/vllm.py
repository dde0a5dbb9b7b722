"""vLLM: exact token ids in both directions, so no template, cut or special token is the server's.

Measured with vLLM 0.32. A server too old to know `use_activation` (0.15 knows it) ignores it and
answers probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qwen3_rag.backends.remote.servers.answers import (
    check_finite,
    in_order,
    log_odds,
    member,
    numbers,
    only_class,
    vectors,
)
from qwen3_rag.backends.remote.servers.base import Call, Dialect, Setup, Values, joined
from qwen3_rag.backends.remote.servers.text import check_no_template
from qwen3_rag.ranking import yes_probability
from qwen3_rag.tokens import Prompt

_WHO = "vLLM gets token ids"


def embedding(setup: Setup) -> Dialect:
    """`POST /v1/embeddings` with ids; vectors come back in base64, a fourth of the bytes of JSON."""
    check_no_template(setup.options, _WHO)

    def call(prompts: Sequence[Prompt]) -> Call:
        def read(answer: Any) -> Values:
            rows = in_order(member(answer, "data"), len(prompts), index="index", value="embedding")
            return vectors(rows, setup.hidden_size)

        body = {"model": setup.model, "input": _ids(prompts), "encoding_format": "base64"}
        return Call(body, read)

    return Dialect(joined(setup, "/v1/embeddings"), call, max_inputs=128, max_tokens=16384)


def reranking(setup: Setup) -> Dialect:
    """`POST /classify` with ids, asking for log-odds in place of probabilities.

    An answer that could be either (all numbers within 0 and 1) is settled by asking for one prompt's
    probability: the one for which the two readings differ most.
    """
    check_no_template(setup.options, _WHO)

    def call(prompts: Sequence[Prompt]) -> Call:
        ids = _ids(prompts)

        def read(answer: Any) -> Values | Call:
            found = _single_class(answer, len(prompts))
            if ((found < 0) | (found > 1)).any():
                return found

            if_log_odds = yes_probability(found)
            telling = int(np.abs(if_log_odds - found).argmax())

            def settle(second: Any) -> Values:
                # Not equality: a batch of one may be rounded otherwise than a batch of many.
                probability = _single_class(second, 1)[0]
                are_log_odds = abs(if_log_odds[telling] - probability) < abs(found[telling] - probability)
                return found if are_log_odds else log_odds(found)

            body = {"model": setup.model, "input": [ids[telling]], "use_activation": True}
            return Call(body, settle, tokens=len(ids[telling]))

        return Call({"model": setup.model, "input": ids, "use_activation": False}, read)

    return Dialect(joined(setup, "/classify"), call, max_inputs=128, max_tokens=16384)


def _single_class(answer: Any, count: int) -> Values:
    rows = in_order(member(answer, "data"), count, index="index", value="probs")
    found = numbers([only_class(row) for row in rows])
    check_finite(found)
    return found


def _ids(prompts: Sequence[Prompt]) -> list[list[int]]:
    return [prompt.token_ids.tolist() for prompt in prompts]
