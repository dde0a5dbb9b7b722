"""Attention by matmul and softmax, in parts of bounded memory, for devices where PyTorch's own cannot be used.

On MPS that is wrong in several versions: for few queries (pytorch/pytorch#163597), for one query of more than a
thousand keys (#174861) and, in half precision, with `is_causal=True` instead of a mask (#195910). It also
computes the whole score matrix of a text: 4 GB for 8,192 tokens and 16 heads.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

PLAIN_DEVICES: Final = frozenset({"mps"})
"""Types of the devices that this attention is used on."""

_MOST_SCORES: Final = 1 << 25
"""Of one call, 128 MiB in float32. Chosen, not tuned."""


def plain_rows_per_call(heads: int, keys: int) -> int:
    """Return how many queries one call may have."""
    return max(1, _MOST_SCORES // (heads * keys))


def attend_plainly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return softmax(query key^T * scale) value, computed in float32 or better.

    Args:
        query: shape (rows, heads, head_dim).
        key, value: shape (keys, kv_heads, head_dim).
        mask: bool, shape (rows, keys); True where a query sees a key. None: each sees all.
        scale: factor of the scores.

    Returns:
        Shape (rows, heads, head_dim), the query's dtype.
    """
    rows, heads, head_dim = query.shape
    kv_heads, exact = key.shape[1], torch.promote_types(query.dtype, torch.float32)
    # The query heads of one key head are adjacent: together they are one operand of the matmul.
    left = (query.to(exact) * scale).view(rows, kv_heads, -1, head_dim).permute(1, 2, 0, 3)
    left = left.reshape(kv_heads, -1, head_dim)
    scores = torch.bmm(left, key.to(exact).permute(1, 2, 0).contiguous())
    if mask is not None:
        scores.view(kv_heads, -1, *mask.shape).masked_fill_(~mask, float("-inf"))
    found = torch.bmm(scores.softmax(-1), value.to(exact).transpose(0, 1).contiguous())
    return (
        found.view(kv_heads, -1, rows, head_dim)
        .permute(2, 0, 1, 3)
        .reshape(rows, heads, head_dim)
        .to(query.dtype)
    )
