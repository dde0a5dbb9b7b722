"""What vLLM must be told so that Qwen3's numbers come out right and engines fit beside each other.

For the vLLM backend and for the commands of `qwen3-rag serve`, which load no torch. Measured with vLLM 0.32.
"""

from __future__ import annotations

import json
from typing import Any, Final

from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import RERANK_PREFIX, RERANK_SUFFIX, rerank_head

CACHE_TOKENS: Final = 16384
"""Default capacity of the key-value cache, in tokens. A pooled prompt leaves the cache as soon as it is
computed, so the cache needs to hold one batch and the prefixes worth keeping. Chosen, not tuned."""
SPARE_TOKENS: Final = 1024
"""Tokens of capacity on top: vLLM keeps a block for itself and rounds prompts up to blocks. Chosen, not
tuned."""
CPU_BLOCK_SIZE: Final = 32
"""Tokens of a cache block on a CPU. vLLM's default there, 128, is longer than the fixed beginning of a rerank
prompt, so nothing would be shared."""


def original_reranker_overrides() -> dict[str, Any]:
    """Return the `hf_overrides` with which vLLM scores by the vocabulary head's rows of "yes" and "no".

    Source: vLLM's documentation of Qwen3-Reranker. Scores measured within 8e-8 of those of Transformers in
    float32.
    """
    return {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }


def rerank_template() -> str:
    """Return the rerank prompt as vLLM's `--chat-template`: a line of Jinja, filled at `/score` and `/rerank`.

    Requests may hold an `instruction`; otherwise it is the default one. The prompt's own text stands in JSON's
    string literals, which Jinja reads as its own, since Jinja drops a newline that ends a template. A string
    like `<|im_end|>` in a query or document is read as the token: see docs/security.md.
    """
    before_instruction, before_query, before_document = rerank_head("\0", "\0").split("\0")
    parts = (
        json.dumps(RERANK_PREFIX + before_instruction),
        f"instruction | default({json.dumps(DEFAULT_INSTRUCTION)})",
        json.dumps(before_query),
        "messages[0].content",
        json.dumps(before_document),
        "messages[1].content",
        json.dumps(RERANK_SUFFIX),
    )
    return "{{ " + " ~ ".join(parts) + " }}"
