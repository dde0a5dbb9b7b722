"""What vLLM must be told so that Qwen3's numbers come out right and engines fit beside each other.

For the vLLM backend and for the commands of `qwen3-rag serve`, which load no torch. Measured with vLLM 0.32.
"""

from __future__ import annotations

from typing import Any, Final

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
