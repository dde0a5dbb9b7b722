"""Attention over a packed row of segments.

A segment is causal within itself and sees all of the segments before it in its sequences, nothing
else, so the result equals each sequence's attention computed alone. With a varlen kernel the part over
the prefix and the part within the segment are two calls, joined by their log-sum-exp; without one,
prefix and own keys are concatenated segment by segment.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_rag.backends.transformers.layout import Continuations, PackedLayout

_BLOCK_ROWS: Final = 1024
"""Rows of a continuation that share one mask, so that the mask of a long one stays small."""


def attend(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    """Attend within a packed row.

    Args:
        query: shape (queries, heads, head_dim), rotary embedding applied; may be overwritten.
        key, value: shape (tokens, kv_heads, head_dim).
        layout: which queries see which keys.
        scale: factor of the scores.

    Returns:
        Shape (queries, heads, head_dim).
    """
    if layout.kernel is not None:
        return _by_kernel(query, key, value, layout, scale)
    return _by_segment(query, key, value, layout, scale)


def _by_segment(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    output = query  # a segment's queries are read by nobody else, so its output takes their place
    if query.device.type != "cpu":
        # Where the kernel that needs no score matrix has no grouped-query attention, PyTorch would make one.
        key, value = (rows.repeat_interleave(query.shape[1] // rows.shape[1], 1) for rows in (key, value))
    query, key, value = (rows.transpose(0, 1)[None] for rows in (query, key, value))
    for span in layout.roots:
        part = F.scaled_dot_product_attention(
            query[:, :, span.queries],
            key[:, :, span.keys],
            value[:, :, span.keys],
            attn_mask=layout.root_mask,
            is_causal=layout.is_causal and layout.root_mask is None,
            scale=scale,
            enable_gqa=True,
        )
        output[span.queries] = part[0].transpose(0, 1)
    for group in layout.continuations:
        if layout.is_causal:
            _continue(query, key, value, group, scale, output)
        else:
            _end(query, key, value, group, scale, output)
    return output


def _continue(
    query: Tensor, key: Tensor, value: Tensor, group: Continuations, scale: float, output: Tensor
) -> None:
    """Write what the tokens of segments after one prefix see."""
    prefix_key, prefix_value = key[:, :, group.prefix], value[:, :, group.prefix]
    shared = len(group.prefix)
    rows = min(_BLOCK_ROWS, max(span.keys.stop - span.keys.start for span in group.spans))
    # Row r of a block sees the prefix, the block's rows up to r, and all blocks before it; the
    # columns to the left of the band are all visible, so one mask serves every block.
    mask = torch.ones(rows, shared + rows, dtype=torch.bool, device=query.device).tril(shared)
    for span in group.spans:
        start, stop = span.keys.start, span.keys.stop
        offset = span.queries.start - start
        for low in range(start, stop, rows):
            high = min(low + rows, stop)
            visible = mask[: high - low, : shared + high - low]
            if low > start:
                visible = F.pad(visible, (low - start, 0), value=True)
            queries = slice(low + offset, high + offset)
            part = F.scaled_dot_product_attention(
                query[:, :, queries],
                torch.cat([prefix_key, key[:, :, start:high]], dim=2),
                torch.cat([prefix_value, value[:, :, start:high]], dim=2),
                attn_mask=visible,
                scale=scale,
                enable_gqa=True,
            )
            output[queries] = part[0].transpose(0, 1)


def _end(query: Tensor, key: Tensor, value: Tensor, group: Continuations, scale: float, output: Tensor) -> None:
    """Write what the last tokens of segments after one prefix see: all of it."""
    prefix_key, prefix_value = key[:, :, group.prefix], value[:, :, group.prefix]
    for span in group.spans:
        part = F.scaled_dot_product_attention(
            query[:, :, span.queries],
            torch.cat([prefix_key, key[:, :, span.keys]], dim=2),
            torch.cat([prefix_value, value[:, :, span.keys]], dim=2),
            scale=scale,
            enable_gqa=True,
        )
        output[span.queries] = part[0].transpose(0, 1)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    assert layout.kernel is not None
    assert layout.own_spans is not None
    output, own = layout.kernel(query, key, value, layout.own_spans, causal=layout.is_causal, scale=scale)
    call = layout.prefix_call
    if call is None:
        return output
    over_prefix, prefix = layout.kernel(
        query.index_select(0, call.query_rows),
        key.index_select(0, call.key_rows),
        value.index_select(0, call.key_rows),
        call.spans,
        causal=False,
        scale=scale,
    )
    # softmax over both sets of keys = the two softmaxes weighted by their share of the sum.
    share = torch.sigmoid(prefix - own.index_select(0, call.query_rows)).unsqueeze(-1)
    over_own = output.index_select(0, call.query_rows).float()
    joined = torch.lerp(over_own, over_prefix.float(), share).to(output.dtype)
    return output.index_copy(0, call.query_rows.long(), joined)
