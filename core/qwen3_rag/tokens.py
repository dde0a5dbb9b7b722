"""Prompts as token ids: what the core and every backend hand to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.prompts import EmbeddingWords, RerankingWords

TokenIds = NDArray[np.int32]
"""One prompt's token ids, shape (length,), at least one."""


@dataclass(frozen=True)
class Prompt:
    """One prompt, as every backend gets it.

    Attributes:
        token_ids: what the model is to see, exactly.
        words: the same before tokenisation, for servers that take only text.
        index: place of its text or pair in the caller's list, for errors. A round merges calls, so this
            is not its place there.
        shared_prefix_tokens: how many leading tokens are template and instruction alone, the same in every
            prompt with that instruction; 0 if not known.
    """

    token_ids: TokenIds
    words: EmbeddingWords | RerankingWords
    index: int = 0
    shared_prefix_tokens: int = 0


@dataclass(frozen=True)
class Prompts:
    """Tokenised prompts of one chunk of a call's inputs.

    Attributes:
        prompts: in the caller's order.
        truncated: how many documents were cut.
    """

    prompts: list[Prompt]
    truncated: int

    @property
    def token_ids(self) -> list[TokenIds]:
        """Token ids of each prompt."""
        return [prompt.token_ids for prompt in self.prompts]


def common_prefix(a: TokenIds, b: TokenIds) -> int:
    """Return how many leading tokens two sequences have in common."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
