"""Keys and values of template and instruction, kept from call to call.

Within a batch the plan finds what prompts have in common. A query alone has nobody to share with, though it
begins as every other query does, often with more tokens than its own. So that beginning is computed by itself,
its keys and values are kept, and the query is computed as what follows.

Whether a batch takes this way depends on the batch alone, not on what is kept just now: the same call gives the
same bits, whatever came before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

from qwen3_rag.plan import MIN_SHARED_TOKENS, PackedBatch
from qwen3_rag.tokens import TokenIds

MOST_TOKENS: Final = 1024
"""Kept in all, tens of beginnings: 112 MiB in 28 layers with 8 key heads of 128, in bfloat16."""

_SMALLEST_SHARE: Final = 1 / 8
"""A beginning is computed by itself only if it is at least this share of the batch's tokens: batches of
documents gain nothing and are left alone. Chosen, not tuned."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """First tokens of prompts, and what attention reads of them.

    Attributes:
        token_ids: int32, shape (tokens,); at positions 0, 1 and so on.
        layers: keys and values of each layer, shape (tokens, kv_heads, head_dim), rotary embedding applied.
    """

    token_ids: TokenIds
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.token_ids)

    def add_layer(self, key: Tensor, value: Tensor) -> None:
        """Copy what the next layer computed for these tokens, of tensors that have them first."""
        self.layers.append((key[: len(self)].clone(), value[: len(self)].clone()))


class Beginnings:
    """What is kept, the last used last.

    Args:
        most_tokens: of all that is kept; 0 keeps nothing.
    """

    def __init__(self, most_tokens: int = MOST_TOKENS) -> None:
        self._most = most_tokens
        self._kept: dict[bytes, Beginning] = {}

    def choose(self, batch: PackedBatch, tokens: int) -> TokenIds | None:
        """Return the first tokens of a batch that are to be computed by themselves; None if not worth it.

        Args:
            batch: the batch.
            tokens: this many are template and instruction in each of its prompts.
        """
        root, *others = batch.segments
        tokens = min(tokens, root.stop - 1)  # something of the root is left to compute
        worth = MIN_SHARED_TOKENS <= tokens <= self._most and tokens >= _SMALLEST_SHARE * len(batch.token_ids)
        if not worth or any(segment.parent is None for segment in others):
            return None
        return batch.token_ids[:tokens].copy()

    def get(self, token_ids: TokenIds) -> Beginning | None:
        """Return what is kept of these tokens."""
        found = self._kept.pop(token_ids.tobytes(), None)
        if found is not None:
            self._kept[token_ids.tobytes()] = found
        return found

    def keep(self, beginning: Beginning) -> None:
        """Keep a beginning, all layers added, in place of those that were not used for longest."""
        self._kept[beginning.token_ids.tobytes()] = beginning
        while sum(map(len, self._kept.values())) > self._most:
            del self._kept[next(iter(self._kept))]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
