"""Keys and values of template and instruction, cached from call to call.

Within a batch the plan finds the prompts' common prefixes. A query alone has nobody to share with, though it
starts as every other query does, often with more tokens than its own. So that prefix is computed by itself, its
keys and values are cached, and the query is computed as its continuation.

Whether a batch uses the cache depends on the batch alone, not on what is cached at the time: the same call
gives the same bits, whatever came before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

from qwen3_rag.plan import MIN_SHARED_TOKENS, PackedBatch
from qwen3_rag.tokens import TokenIds

MAX_CACHED_TOKENS: Final = 1024
"""Of all prefixes together, which may be tens: 112 MiB in 28 layers with 8 key heads of 128, in bfloat16."""

_MIN_SHARE: Final = 1 / 8
"""A prefix is computed by itself only if it has at least this share of the batch's tokens: large batches of
documents gain nothing. Chosen, not tuned."""


@dataclass(frozen=True, eq=False)
class CachedPrefix:
    """First tokens of prompts, with their keys and values.

    Attributes:
        token_ids: int32, shape (tokens,); at positions 0, 1 and so on.
        layers: keys and values of each layer, both (tokens, kv_heads, head_dim), rotary embedding applied.
    """

    token_ids: TokenIds
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.token_ids)

    def add_layer(self, key: Tensor, value: Tensor) -> None:
        """Copy the next layer's keys and values of these tokens: the first rows of both tensors."""
        self.layers.append((key[: len(self)].clone(), value[: len(self)].clone()))


class PrefixCache:
    """The least recently used prefixes are dropped first.

    Args:
        max_tokens: of all cached prefixes; 0 caches nothing.
    """

    def __init__(self, max_tokens: int = MAX_CACHED_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._prefixes: dict[bytes, CachedPrefix] = {}  # the most recently used last

    def prefix_worth_caching(self, batch: PackedBatch, shared_tokens: int) -> TokenIds | None:
        """Return the common prefix of a batch that is to be computed by itself; None if not worth it.

        Args:
            batch: the batch.
            shared_tokens: how many leading tokens are template and instruction in each of its prompts.
        """
        root, *others = batch.segments
        tokens = min(shared_tokens, root.stop - 1)  # at least one token of the root remains to be computed
        fewest = max(MIN_SHARED_TOKENS, _MIN_SHARE * len(batch.token_ids))
        if not fewest <= tokens <= self._max_tokens or any(segment.parent is None for segment in others):
            return None
        return batch.token_ids[:tokens].copy()

    def get(self, token_ids: TokenIds) -> CachedPrefix | None:
        """Return the cached prefix of exactly these tokens."""
        found = self._prefixes.pop(token_ids.tobytes(), None)
        if found is not None:
            self._prefixes[token_ids.tobytes()] = found
        return found

    def put(self, prefix: CachedPrefix) -> None:
        """Cache a prefix that has all layers, dropping others until at most `max_tokens` remain."""
        self._prefixes[prefix.token_ids.tobytes()] = prefix
        while sum(map(len, self._prefixes.values())) > self._max_tokens:
            del self._prefixes[next(iter(self._prefixes))]

    def clear(self) -> None:
        """Drop all prefixes."""
        self._prefixes.clear()
