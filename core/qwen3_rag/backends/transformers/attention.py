"""Attention over a packed row of segments.

A segment is causal within itself and sees all of the segments before it in its sequences, nothing
else, so the result equals each sequence's attention computed alone. Own keys are written behind those of the
prefix: with a varlen kernel for all segments at once, else one by one, for PyTorch's attention.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_rag.backends.transformers.kernel_layout import KernelLayout
from qwen3_rag.backends.transformers.layout import Layout
from qwen3_rag.backends.transformers.plain_attention import PLAIN_DEVICES, attend_plainly, rows_at_once
from qwen3_rag.backends.transformers.segment_layout import SegmentLayout

_BLOCK_ROWS: Final = 1024
"""Queries that share one mask, so that the mask of a long segment stays small."""

_KEY_STEP: Final = 16
"""Keys of a call in bfloat16 on a CPU are filled to a multiple of this, as many as a tile of AMX has rows. On
an Intel Xeon 75 queries took 302 us over 155 keys and 227 over 160, a text of 350 tokens 1.8 ms, with 352 keys
1.2."""

_CPU_BLOCK_ROWS: Final = 64
"""Queries of a call on a CPU, where PyTorch computes whole blocks of 512 keys, those after a query too. On an
AMD EPYC calls of 64 took 11.6 ms for a text of 512 tokens and a single one 16.7, for 256 tokens 3.7 and 4.5,
for 1,024 38 and 42. For 2,048 they took longer. So they do with AMX, where PyTorch arranges keys anew in each
call: 4.0 ms for 512 tokens in place of 2.9."""

_CPU_GROUPS_KEYS: Final = torch.__version__ >= "2.9"  # compared as releases, not as text
"""Whether PyTorch's kernel for CPUs takes fewer heads of keys than of queries. Releases before 2.9 make all
scores of a call instead: with 2.8 a text of 4,096 tokens took 4.6 s in place of 0.7, and 2.4 GiB."""


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """Attend within a packed row.

    Args:
        query: shape (queries, heads, head_dim), rotary embedding applied; may be overwritten.
        key, value: shape (tokens, kv_heads, head_dim).
        layout: which queries see which keys.
        scale: factor of the scores.

    Returns:
        Shape (queries, heads, head_dim).
    """
    if isinstance(layout, KernelLayout):
        return _by_kernel(query, key, value, layout, scale)
    return _by_segment(query, key, value, layout, scale)


def _by_segment(query: Tensor, key: Tensor, value: Tensor, layout: SegmentLayout, scale: float) -> Tensor:
    output = query  # a segment's queries are read by nobody else, so its output takes their place
    if not _groups_keys(query.device):
        # PyTorch would make a score matrix rather than take the kernel that needs none.
        key, value = (rows.repeat_interleave(query.shape[1] // rows.shape[1], 1) for rows in (key, value))
    for span in layout.roots:
        start, seen = span.keys.start, span.keys.stop - span.keys.start
        _replace(query[span.queries], key[start:], value[start:], seen, layout, scale)
    for group in layout.continuations:
        shared, longest = len(group.prefix), max(span.keys.stop - span.keys.start for span in group.spans)
        # Behind the prefix the keys of one continuation after another are written.
        room = _filled(shared + longest, query)
        keys, values = (rows.new_zeros(room, *rows.shape[1:]) for rows in (key, value))
        keys[:shared], values[:shared] = key[group.prefix], value[group.prefix]
        for span in group.spans:
            seen = shared + span.keys.stop - span.keys.start
            keys[shared:seen], values[shared:seen] = key[span.keys], value[span.keys]
            _replace(query[span.queries], keys, values, seen, layout, scale)
    return output


def _replace(query: Tensor, key: Tensor, value: Tensor, last: int, layout: SegmentLayout, scale: float) -> None:
    """Write what the queries of one segment see in their place.

    Args:
        query: of the segment.
        key, value: what it sees, and any rows behind.
        last: how many of those the last query sees.
        layout: which of them the others see.
        scale: factor of the scores.
    """
    rows, before = query.shape[0], last - query.shape[0]
    is_plain = query.device.type in PLAIN_DEVICES
    if is_plain:
        size = rows_at_once(query.shape[1], last)
    else:
        size = _rows_at_once(rows, before, query.device) if layout.is_causal else rows
    for low in range(0, rows, size):
        high = min(low + size, rows)
        seen = before + high
        given = min(_filled(seen, query), key.shape[0]) if layout.is_causal else seen
        part, keys, values = query[low:high], key[:given], value[:given]
        starts = before + low == 0 and not is_plain
        mask = (
            layout.masks.of(high - low, before + low, given - seen) if layout.is_causal and not starts else None
        )
        if is_plain:
            part.copy_(attend_plainly(part, keys, values, mask, scale))
            continue
        found = F.scaled_dot_product_attention(
            part.transpose(0, 1)[None],
            keys.transpose(0, 1)[None],
            values.transpose(0, 1)[None],
            attn_mask=mask,
            is_causal=layout.is_causal and starts,
            scale=scale,
            enable_gqa=True,
        )
        part.copy_(found[0].transpose(0, 1))


def _groups_keys(device: torch.device) -> bool:
    return device.type in PLAIN_DEVICES or (device.type == "cpu" and _CPU_GROUPS_KEYS)


def _filled(keys: int, like: Tensor) -> int:
    """Return how many keys a call is given of which so many are seen.

    What lies in the rows behind those, keys of the next segment or zeros, is multiplied by zero. If it is not
    finite, neither is the result: such batches are computed anew (`backend.py`).
    """
    if like.dtype != torch.bfloat16 or like.device.type != "cpu":
        return keys
    return -(-keys // _KEY_STEP) * _KEY_STEP


def _rows_at_once(rows: int, before: int, device: torch.device) -> int:
    if device.type == "cpu" and rows <= _BLOCK_ROWS and not torch.cpu._is_amx_tile_supported():
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
    """Join, in some rows of an output, what was seen of own keys with what was seen of the prefix.

    The softmax over both sets of keys is the two softmaxes weighted by their share of the sum. Products and
    their sum are float32.

    Args:
        output: shape (queries, heads, head_dim), over own keys; overwritten.
        sums: float32, shape (queries, heads); the log-sum-exp of own scores.
        over_prefix, prefix_sums: the same of the rows over the prefix.
        rows: int32, of the output.
    """
    difference = sums.index_select(0, rows).sub_(prefix_sums).unsqueeze(-1)
    own = output.index_select(0, rows)
    of_own = own * torch.sigmoid(difference)
    joined = torch.addcmul(of_own, over_prefix, torch.sigmoid(difference.neg_()), out=own)
    return output.index_copy_(0, rows.long(), joined)
