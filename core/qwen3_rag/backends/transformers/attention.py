"""Attention over a packed row of segments.

A segment is causal within itself and attends to all segments of its prefix, nothing else, so the result equals
each sequence's attention computed alone. A segment's keys are copied behind those of its prefix: for a varlen
kernel those of all segments at once, for PyTorch's attention segment by segment.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_rag.backends.transformers.kernel_layout import KernelLayout
from qwen3_rag.backends.transformers.kernels import VarlenKernel
from qwen3_rag.backends.transformers.layout import Layout
from qwen3_rag.backends.transformers.plain_attention import (
    PLAIN_DEVICES,
    attend_plainly,
    plain_rows_per_call,
)
from qwen3_rag.backends.transformers.segment_layout import SegmentLayout

_BLOCK_ROWS: Final = 1024
"""Most queries of a call with a mask, which bounds the mask of a long segment. Chosen, not tuned."""

_KEY_STEP: Final = 16
"""Calls in bfloat16 on a CPU get a multiple of so many keys, the rows of an AMX tile. On an Intel Xeon 75
queries took 302 us over 155 keys and 227 over 160; a text of 350 tokens took 1.8 ms, with 352 keys 1.2."""

_CPU_BLOCK_ROWS: Final = 64
"""Queries of a call on a CPU, where PyTorch computes whole blocks of 512 keys, those after a query too. On an
AMD EPYC calls of 64 took 11.6 ms for a text of 512 tokens and a single one 16.7, for 256 tokens 3.7 and 4.5,
for 1,024 38 and 42, but for 2,048 they took longer. They also take longer with AMX, where PyTorch repacks the
keys in each call: 4.0 ms for 512 tokens instead of 2.9."""

_CPU_GROUPS_KEYS: Final = torch.__version__ >= "2.9"  # compared as versions, not as text
"""Whether PyTorch's kernel for CPUs takes fewer key heads than query heads. Before 2.9 PyTorch computes the
whole score matrix instead: with 2.8 a text of 4,096 tokens took 4.6 s instead of 0.7, and 2.4 GiB."""


def attention_path(device: torch.device, found: tuple[str, VarlenKernel] | None) -> str:
    """Return the name of the attention path, for people.

    Args:
        device: of the model.
        found: what `find_varlen_kernel` returned for it.

    Returns:
        "torch.nn.attention.varlen", "flash-attn", "sdpa per segment" or "matmul and softmax per segment".
    """
    if found is not None:
        return found[0]
    return "matmul and softmax per segment" if device.type in PLAIN_DEVICES else "sdpa per segment"


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """Attend within a packed row.

    Args:
        query: shape (queries, heads, head_dim), rotary embedding applied; may be overwritten.
        key, value: shape (tokens, kv_heads, head_dim), those of a cached prefix first.
        layout: which queries see which keys.
        scale: factor of the scores.

    Returns:
        Shape (queries, heads, head_dim).
    """
    if isinstance(layout, KernelLayout):
        return _by_kernel(query, key, value, layout, scale)
    return _by_segment(query, key, value, layout, scale)


def _by_segment(query: Tensor, key: Tensor, value: Tensor, layout: SegmentLayout, scale: float) -> Tensor:
    """Attend segment by segment; overwrites the query, since only its own segment reads it."""
    if not _groups_keys(query.device):
        # PyTorch would compute the whole score matrix instead of using its fused kernel.
        key, value = (rows.repeat_interleave(query.shape[1] // rows.shape[1], 1) for rows in (key, value))
    for span in layout.roots:
        start, seen = span.keys.start, span.keys.stop - span.keys.start
        _attend_segment(query[span.queries], key[start:], value[start:], seen, layout, scale)
    for group in layout.continuations:
        shared, longest = len(group.prefix), max(span.keys.stop - span.keys.start for span in group.spans)
        # One buffer: the prefix once, then each continuation's keys in turn behind it.
        size = _padded_key_count(shared + longest, query)
        keys, values = (rows.new_zeros(size, *rows.shape[1:]) for rows in (key, value))
        keys[:shared], values[:shared] = key[group.prefix], value[group.prefix]
        for span in group.spans:
            seen = shared + span.keys.stop - span.keys.start
            keys[shared:seen], values[shared:seen] = key[span.keys], value[span.keys]
            _attend_segment(query[span.queries], keys, values, seen, layout, scale)
    return query


def _attend_segment(
    query: Tensor, key: Tensor, value: Tensor, last: int, layout: SegmentLayout, scale: float
) -> None:
    """Overwrite the queries of one segment with the attention's output.

    Args:
        query: shape (queries, heads, head_dim).
        key, value: shape (keys, kv_heads, head_dim); what the segment sees, then any other rows.
        last: how many of the keys the last query sees.
        layout: whether the queries are causal, and masks.
        scale: factor of the scores.
    """
    before = last - query.shape[0]
    plain = query.device.type in PLAIN_DEVICES
    size = plain_rows_per_call(query.shape[1], last) if plain else _sdpa_rows_per_call(query, before, layout)
    for low in range(0, query.shape[0], size):
        part = query[low : low + size]
        seen = before + low + part.shape[0]
        given = min(_padded_key_count(seen, query), key.shape[0]) if layout.is_causal else seen
        # PyTorch's `is_causal=True` is faster than a mask, and right only where no key precedes the queries.
        without_mask = layout.is_causal and before + low == 0 and not plain
        mask = None
        if layout.is_causal and not without_mask:
            mask = layout.masks.of(part.shape[0], before + low, given - seen)
        if plain:
            part.copy_(attend_plainly(part, key[:given], value[:given], mask, scale))
        else:
            part.copy_(_sdpa(part, key[:given], value[:given], mask, is_causal=without_mask, scale=scale))


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float
) -> Tensor:
    """Call PyTorch's attention; shapes as in `attend`, the mask as in `attend_plainly`."""
    output = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        key.transpose(0, 1)[None],
        value.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=True,
    )
    return output[0].transpose(0, 1)


def _groups_keys(device: torch.device) -> bool:
    """Whether the attention on a device takes fewer key heads than query heads."""
    return device.type in PLAIN_DEVICES or (device.type == "cpu" and _CPU_GROUPS_KEYS)


def _padded_key_count(keys: int, like: Tensor) -> int:
    """Return how many keys to pass for `keys` visible ones.

    The extra rows, of the next segment or zeros, are masked: their weight is 0, but 0 * NaN is NaN, which
    `backend.py` handles.
    """
    if like.dtype != torch.bfloat16 or like.device.type != "cpu":
        return keys
    return -(-keys // _KEY_STEP) * _KEY_STEP


def _sdpa_rows_per_call(query: Tensor, before: int, layout: SegmentLayout) -> int:
    """Return how many queries of a segment one call takes, if so many keys precede the segment's own."""
    rows = query.shape[0]
    if not layout.is_causal:
        return rows
    if query.device.type == "cpu" and rows <= _BLOCK_ROWS and not torch.cpu._is_amx_tile_supported():
        return min(rows, _CPU_BLOCK_ROWS)
    return min(rows, _BLOCK_ROWS) if before else rows


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, layout: KernelLayout, scale: float) -> Tensor:
    if layout.key_rows is not None:
        key, value = (rows.index_select(0, layout.key_rows) for rows in (key, value))
    output, sums = layout.kernel(query, key, value, layout.spans, causal=layout.is_causal, scale=scale)
    call = layout.prefix_call
    if call is None:
        return output
    over_prefix, prefix_sums = layout.kernel(
        query.index_select(0, call.query_rows),
        key.index_select(0, call.key_rows),
        value.index_select(0, call.key_rows),
        call.spans,
        causal=False,
        scale=scale,
    )
    return _join(output, sums, over_prefix, prefix_sums, call.query_rows)


def _join(output: Tensor, sums: Tensor, over_prefix: Tensor, prefix_sums: Tensor, rows: Tensor) -> Tensor:
    """Merge, in some rows of an output, attention over own keys with attention over the prefix.

    The softmax over both sets of keys is the two softmaxes weighted by their share of the sum. Products and
    their sum are float32.

    Args:
        output: shape (queries, heads, head_dim), over own keys; overwritten.
        sums: float32, shape (queries, heads); the log-sum-exp of own scores.
        over_prefix: shape (rows, heads, head_dim), over the prefix.
        prefix_sums: float32, shape (rows, heads); the log-sum-exp of its scores.
        rows: int32, shape (rows,); the rows of `output` that have a prefix.
    """
    difference = sums.index_select(0, rows).sub_(prefix_sums).unsqueeze(-1)
    own = output.index_select(0, rows)
    of_own = own * torch.sigmoid(difference)
    joined = torch.addcmul(of_own, over_prefix, torch.sigmoid(difference.neg_()), out=own)
    return output.index_copy_(0, rows.long(), joined)
