"""Keys and values of beginnings that come again from call to call, such as an instruction before each query.

Within a batch the plan finds what prompts have in common. A query alone has nobody to share with, though the
query before it began with the same instruction, often more tokens than the query itself. So the beginnings of
the last batches are remembered; what a batch has in common with one of them is kept, layer by layer, and the
next batch that begins with it computes only what follows. Keys and values of a token depend on nothing after
it, so any first part of what is kept is right too.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

from qwen3_rag.plan import MIN_SHARED_TOKENS, PackedBatch, common_prefix
from qwen3_rag.tokenization import TokenIds

MOST_TOKENS: Final = 256
"""Of one beginning; its keys and values take 28 MiB in 28 layers with 8 key heads of 128, in bfloat16."""

MOST_KEPT: Final = 4
"""Beginnings kept, and batches remembered. Chosen, not tuned."""

_WORTH: Final = 8
"""A beginning counts where at least one of so many tokens of its batch is in it: batches of documents, which
would gain nothing, pay nothing. Chosen, not tuned."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """First tokens of a batch, and what attention reads of them.

    Attributes:
        token_ids: int32, shape (tokens,); at positions 0, 1 and so on.
        layers: keys and values of each layer, shape (tokens, kv_heads, head_dim), rotary embedding applied.
    """

    token_ids: TokenIds
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.token_ids)

    def add_layer(self, key: Tensor, value: Tensor) -> None:
        """Copy what the next layer computed for a batch that begins with these tokens."""
        self.layers.append((key[: len(self)].clone(), value[: len(self)].clone()))

    def first(self, tokens: int) -> Beginning:
        """Return the first tokens alone."""
        return Beginning(
            self.token_ids[:tokens], [(key[:tokens], value[:tokens]) for key, value in self.layers]
        )


class Beginnings:
    """What is kept and remembered, the latest last.

    Args:
        most: beginnings kept; 0 keeps none and finds none.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._kept: deque[Beginning] = deque(maxlen=most)
        self._seen: deque[TokenIds] = deque(maxlen=most)

    def find(self, batch: PackedBatch) -> Beginning | None:
        """Return what is kept of the tokens that all sequences of a batch begin with, less their last one."""
        tokens = _common_to_all(batch)
        if tokens is None or not self._kept:
            return None
        shared, place = max((common_prefix(kept.token_ids, tokens), i) for i, kept in enumerate(self._kept))
        shared = min(shared, batch.segments[0].stop - 1)  # something is left to compute
        if not _is_worth(shared, batch):
            return None
        found = self._kept[place]
        del self._kept[place]
        self._kept.append(found)
        return found.first(shared)

    def to_keep(self, batch: PackedBatch, found: Beginning | None) -> Beginning | None:
        """Return a beginning that an earlier batch had too, its layers to be added; None if `found` will do."""
        tokens = _common_to_all(batch)
        if tokens is None or not self._seen:
            return None
        shared = max(common_prefix(seen, tokens) for seen in self._seen)
        more = shared if found is None else shared - len(found)
        return Beginning(tokens[:shared]) if more >= MIN_SHARED_TOKENS and _is_worth(shared, batch) else None

    def remember(self, batch: PackedBatch, kept: Beginning | None) -> None:
        """Take note of a batch that was computed, and of what was kept of it, all layers added."""
        tokens = _common_to_all(batch)
        if tokens is not None:
            self._seen.append(tokens)
        if kept is not None:
            for other in [k for k in self._kept if common_prefix(k.token_ids, kept.token_ids) == len(k)]:
                self._kept.remove(other)
            self._kept.append(kept)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._seen.clear()


def _common_to_all(batch: PackedBatch) -> TokenIds | None:
    """Return the tokens that all sequences of a batch begin with, the first of many; None if hardly any."""
    root, *others = batch.segments
    if any(segment.parent is None for segment in others):
        return None
    tokens = batch.token_ids[: min(root.stop, MOST_TOKENS)]
    return tokens if _is_worth(len(tokens), batch) else None


def _is_worth(shared: int, batch: PackedBatch) -> bool:
    return shared >= MIN_SHARED_TOKENS and shared * _WORTH >= len(batch.token_ids)
