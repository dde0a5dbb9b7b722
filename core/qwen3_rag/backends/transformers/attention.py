"""Attention over a packed row of segments, plugged into Hugging Face's modules.

Registered under one name with `transformers.AttentionInterface`; the layout of the row travels as
a keyword of the model's forward call. The mask argument is ignored: a segment is causal within
itself and sees all of the segments before it in its sequences, nothing else.

The result equals each sequence's attention computed alone. With a varlen kernel the part over the
prefix and the causal part are two calls, joined by their log-sum-exp; without one, prefix and own
keys are concatenated segment by segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface

from qwen3_rag.backends.transformers.kernels import Spans, VarlenKernel
from qwen3_rag.plan import PackedBatch, Segment

PACKED_ATTENTION: Final = "qwen3_rag_packed"
"""Value of `attn_implementation` that selects `packed_attention`."""

_BLOCK_ROWS: Final = 1024
"""Rows of a continuation that share one mask, so that the mask of a long one stays small."""


@dataclass(frozen=True)
class Continuations:
    """Segments after one and the same prefix.

    Attributes:
        prefix: int32 row indices of the prefix's tokens, root first, shape (prefix_tokens,).
        spans: rows (start, stop) of each continuation.
    """

    prefix: Tensor
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PrefixCall:
    """The second varlen call: continuations' queries over their prefixes' keys.

    Attributes:
        query_rows: int32, rows of all continuations, those after one prefix together.
        key_rows: int32, rows of the prefixes, in the same order.
        spans: one span per prefix.
    """

    query_rows: Tensor
    key_rows: Tensor
    spans: Spans


@dataclass(frozen=True)
class PackedLayout:
    """How a packed row is cut into segments, on the model's device.

    Attributes:
        roots: rows (start, stop) of segments without a prefix.
        continuations: the other segments, by prefix.
        kernel: FlashAttention over spans, or None to go segment by segment.
        causal_spans: every segment by itself; used with a kernel.
        prefix_call: used with a kernel; None when no segment has a prefix.
    """

    roots: tuple[tuple[int, int], ...]
    continuations: tuple[Continuations, ...]
    kernel: VarlenKernel | None = None
    causal_spans: Spans | None = None
    prefix_call: PrefixCall | None = None


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on the model's device: what the forward call and the pooling take.

    Attributes:
        input_ids, position_ids: int32, shape (1, tokens).
        last_rows: int32, shape (n,).
        layout: for the attention.
    """

    input_ids: Tensor
    position_ids: Tensor
    last_rows: Tensor
    layout: PackedLayout


def to_device(batch: PackedBatch, device: torch.device, kernel: VarlenKernel | None) -> DeviceBatch:
    """Move a batch and its layout to the device, in one transfer."""
    prefixes = _prefixes(batch.segments)
    children = {
        parent: [(s.start, s.stop) for s in batch.segments if s.parent == parent] for parent in prefixes
    }
    parts: list[NDArray[np.int32]] = [batch.token_ids, batch.position_ids, batch.last_rows.astype(np.int32)]
    parts += prefixes.values()
    if kernel is not None:
        parts.append(_offsets([s.stop - s.start for s in batch.segments]))
    if kernel is not None and prefixes:
        query_rows = [np.concatenate([np.arange(*span) for span in spans]) for spans in children.values()]
        parts += [
            np.concatenate(query_rows),
            np.concatenate(list(prefixes.values())),
            _offsets([len(rows) for rows in query_rows]),
            _offsets([len(rows) for rows in prefixes.values()]),
        ]
    moved = iter(_move(parts, device))
    input_ids, position_ids, last_rows = next(moved), next(moved), next(moved)
    continuations = tuple(Continuations(next(moved), tuple(spans)) for spans in children.values())
    roots = tuple((s.start, s.stop) for s in batch.segments if s.parent is None)
    causal_spans = prefix_call = None
    if kernel is not None:
        longest = max(s.stop - s.start for s in batch.segments)
        offsets = next(moved)
        causal_spans = Spans(offsets, offsets, longest, longest)
    if kernel is not None and prefixes:
        prefix_call = PrefixCall(
            next(moved),
            next(moved),
            Spans(
                next(moved),
                next(moved),
                max(len(rows) for rows in query_rows),
                max(len(rows) for rows in prefixes.values()),
            ),
        )
    layout = PackedLayout(roots, continuations, kernel, causal_spans, prefix_call)
    return DeviceBatch(input_ids[None], position_ids[None], last_rows, layout)


def packed_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    scaling: float,
    sliding_window: int | None = None,
    packed_layout: PackedLayout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within a packed row, as Hugging Face's attention functions are called.

    Args:
        _module: the calling attention module, not needed.
        query: shape (1, heads, tokens, head_dim), rotary embedding applied.
        key, value: shape (1, kv_heads, tokens, head_dim).
        _attention_mask: ignored; the layout says what sees what.
        scaling: factor of the scores.
        sliding_window: None; Qwen3's published checkpoints use none.
        packed_layout: the row's layout, passed to the model's forward call.
        _: dropout, zero outside training, and keywords of the forward call that Hugging Face hands on.

    Returns:
        The output, shape (1, tokens, heads, head_dim), and no attention weights.

    Raises:
        ValueError: a layout is missing, or the model uses a sliding window.
    """
    if packed_layout is None or sliding_window is not None:
        raise ValueError(
            f"{PACKED_ATTENTION} attention needs packed_layout and no sliding window, "
            f"got packed_layout={packed_layout} and sliding_window={sliding_window}"
        )
    if packed_layout.kernel is not None:
        return _by_kernel(query, key, value, packed_layout, scaling), None
    return _by_segment(query, key, value, packed_layout, scaling), None


AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def _by_segment(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    _, heads, tokens, head_dim = query.shape
    output = query.new_empty(1, tokens, heads, head_dim)
    for start, stop in layout.roots:
        part = F.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            is_causal=True,
            scale=scale,
            enable_gqa=True,
        )
        output[:, start:stop] = part.transpose(1, 2)
    for group in layout.continuations:
        prefix_key, prefix_value = key[:, :, group.prefix], value[:, :, group.prefix]
        shared = len(group.prefix)
        rows = min(_BLOCK_ROWS, max(stop - start for start, stop in group.spans))
        # Row r of a block sees the prefix, the block's rows up to r, and all blocks before it; the
        # columns to the left of the band are all visible, so one mask serves every block.
        mask = torch.ones(rows, shared + rows, dtype=torch.bool, device=query.device).tril(shared)
        for start, stop in group.spans:
            for low in range(start, stop, rows):
                high = min(low + rows, stop)
                visible = mask[: high - low, : shared + high - low]
                if low > start:
                    visible = F.pad(visible, (low - start, 0), value=True)
                part = F.scaled_dot_product_attention(
                    query[:, :, low:high],
                    torch.cat([prefix_key, key[:, :, start:high]], dim=2),
                    torch.cat([prefix_value, value[:, :, start:high]], dim=2),
                    attn_mask=visible,
                    scale=scale,
                    enable_gqa=True,
                )
                output[:, low:high] = part.transpose(1, 2)
    return output


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    assert layout.kernel is not None
    assert layout.causal_spans is not None
    query_rows, key_rows, value_rows = (t[0].transpose(0, 1).contiguous() for t in (query, key, value))
    output, own = layout.kernel(query_rows, key_rows, value_rows, layout.causal_spans, causal=True, scale=scale)
    call = layout.prefix_call
    if call is not None:
        over_prefix, prefix = layout.kernel(
            query_rows.index_select(0, call.query_rows),
            key_rows.index_select(0, call.key_rows),
            value_rows.index_select(0, call.key_rows),
            call.spans,
            causal=False,
            scale=scale,
        )
        # softmax over both sets of keys = the two softmaxes weighted by their share of the sum.
        share = torch.sigmoid(prefix - own.index_select(0, call.query_rows)).unsqueeze(-1)
        over_own = output.index_select(0, call.query_rows).float()
        joined = torch.lerp(over_own, over_prefix.float(), share).to(output.dtype)
        output = output.index_copy(0, call.query_rows.long(), joined)
    return output.unsqueeze(0)


def _prefixes(segments: tuple[Segment, ...]) -> dict[int, NDArray[np.int32]]:
    """Return the rows before the children of each segment that has any, by segment index."""
    rows: dict[int, NDArray[np.int32]] = {}
    for segment in segments:
        index = segment.parent
        if index is None or index in rows:
            continue
        parent = segments[index]
        own = np.arange(parent.start, parent.stop, dtype=np.int32)
        # A parent that has a parent is itself a child, so its own prefix stands in `rows` already.
        rows[index] = own if parent.parent is None else np.concatenate([rows[parent.parent], own])
    return rows


def _offsets(lengths: list[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _move(parts: list[NDArray[np.int32]], device: torch.device) -> list[Tensor]:
    flat = torch.from_numpy(np.concatenate(parts).astype(np.int32, copy=False))
    if device.type == "cuda":
        flat = flat.pin_memory()
    return list(torch.split(flat.to(device, non_blocking=True), [len(part) for part in parts]))
