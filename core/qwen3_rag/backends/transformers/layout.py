"""How a packed row is cut into segments, as tensors on the model's device.

Every layer but the last attends from all tokens; the last only from each segment's last token, since
nothing else of its output is read. Both layouts have the same keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3_rag.backends.transformers.kernels import Spans, VarlenKernel
from qwen3_rag.backends.transformers.masks import CausalMasks
from qwen3_rag.plan import PackedBatch, Segment

Rows = NDArray[np.int32]


@dataclass(frozen=True)
class Span:
    """One segment.

    Attributes:
        queries: its rows of the query tensor: all of its tokens that are computed, or its last alone.
        keys: its rows of the key and value tensors, where the tokens not computed come first.
    """

    queries: slice
    keys: slice


@dataclass(frozen=True)
class Continuations:
    """Segments after one and the same prefix.

    Attributes:
        prefix: int32 rows of the prefix's tokens, root first, shape (prefix_tokens,).
        spans: each continuation.
    """

    prefix: Tensor
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class PrefixCall:
    """The second varlen call: continuations' queries over their prefixes' keys.

    Attributes:
        query_rows: int32, rows of all continuations' queries, those after one prefix together.
        key_rows: int32, rows of the prefixes, in the same order.
        spans: one span per prefix.
    """

    query_rows: Tensor
    key_rows: Tensor
    spans: Spans


@dataclass(frozen=True)
class PackedLayout:
    """Which queries see which keys: a segment's see its prefix, and of itself what is not after them.

    Attributes:
        is_causal: a segment's queries are its last tokens, each of which sees the keys up to its own;
            False: one query, which sees all keys.
        roots: segments without a prefix.
        continuations: the other segments, by prefix.
        masks: used without a kernel.
        kernel: FlashAttention over spans, or None to go segment by segment.
        own_spans: every segment by itself; used with a kernel.
        prefix_call: used with a kernel; None when no segment has a prefix.
    """

    is_causal: bool
    roots: tuple[Span, ...]
    continuations: tuple[Continuations, ...]
    masks: CausalMasks
    kernel: VarlenKernel | None = None
    own_spans: Spans | None = None
    prefix_call: PrefixCall | None = None


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on a device of the model.

    Attributes:
        input_ids, position_ids: int32, shape (tokens,); of the tokens to compute, and of rows behind them that
            nobody reads.
        segment_ends: int32, shape (segments,); the row of each segment's last token, and more, read by nobody.
        sequence_ends: int32, shape (n,); the segment that each sequence ends with. Several may share one.
        layout: of the attention from all tokens.
        ends_layout: of the attention from the segments' last tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ends: Tensor
    sequence_ends: Tensor
    layout: PackedLayout
    ends_layout: PackedLayout


def to_device(
    batch: PackedBatch,
    device: torch.device,
    kernel: VarlenKernel | None,
    known: int = 0,
    rows_for: Callable[[int], int] | None = None,
) -> DeviceBatch:
    """Move a batch and its layouts to a device, in one transfer.

    Args:
        batch: the batch.
        device: where to.
        kernel: see `PackedLayout`.
        known: its first rows, whose keys and values are known already: fewer than the first segment has, which
            is then the only root. Only without a kernel.
        rows_for: from a number of rows to that which is computed, at least as many; None: no more than asked.
    """
    rows = host_rows(batch, kernel, known)
    if rows_for is not None:
        for name in ("ids", "positions", "ends"):
            rows[name] = _filled(rows[name], rows_for(len(rows[name])))
    return device_batch(batch, views(rows, upload(rows, device)), kernel, known)


def host_rows(batch: PackedBatch, kernel: VarlenKernel | None, known: int = 0) -> dict[str, Rows]:
    """Return all numbers of a batch that its device reads, by name; for the arguments see `to_device`."""
    assert not known or kernel is None
    segments = batch.segments
    ends = np.array([s.stop - 1 for s in segments], dtype=np.int32)
    rows: dict[str, Rows] = {
        "ids": batch.token_ids[known:],
        "positions": batch.position_ids[known:],
        "ends": ends - known,
        "sequences": np.searchsorted(ends, batch.last_rows).astype(np.int32),
    }
    prefixes = _prefixes(segments)
    rows |= {f"prefix {index}": prefix for index, prefix in prefixes.items()}
    if kernel is not None:
        rows["own offsets"] = _offsets([s.stop - s.start for s in segments])
        rows["end offsets"] = np.arange(len(segments) + 1, dtype=np.int32)
    if kernel is not None and prefixes:
        groups = list(_children(segments).values())
        queries = [[np.arange(segments[i].start, segments[i].stop) for i in group] for group in groups]
        rows["key rows"] = np.concatenate(list(prefixes.values()))
        rows["key offsets"] = _offsets([len(prefix) for prefix in prefixes.values()])
        rows["query rows"] = np.concatenate([own for group in queries for own in group])
        rows["query offsets"] = _offsets([sum(map(len, group)) for group in queries])
        rows["end query rows"] = np.concatenate([np.array(group) for group in groups])
        rows["end query offsets"] = _offsets([len(group) for group in groups])
    return rows


def device_batch(
    batch: PackedBatch,
    moved: dict[str, Tensor],
    kernel: VarlenKernel | None,
    known: int = 0,
    longest: int | None = None,
) -> DeviceBatch:
    """Put together a batch of its numbers on a device.

    Args:
        batch: the batch.
        moved: what `host_rows` gave, on the device.
        kernel: see `PackedLayout`.
        known: see `to_device`.
        longest: what the kernel is told is the longest segment, at least that; None: exactly that.
    """
    segments, children = batch.segments, _children(batch.segments)
    masks = CausalMasks(moved["ids"].device)
    if longest is None:
        longest = max(s.stop - s.start for s in segments)

    def layout(*, ends_only: bool) -> PackedLayout:
        spans = [
            Span(
                slice(i, i + 1) if ends_only else slice(max(s.start - known, 0), s.stop - known),
                slice(s.start, s.stop),
            )
            for i, s in enumerate(segments)
        ]
        roots = tuple(span for span, s in zip(spans, segments, strict=True) if s.parent is None)
        continuations = tuple(
            Continuations(moved[f"prefix {p}"], tuple(spans[i] for i in group)) for p, group in children.items()
        )
        own_spans = prefix_call = None
        if kernel is not None:
            queries = moved["end offsets" if ends_only else "own offsets"]
            own_spans = Spans(queries, moved["own offsets"], 1 if ends_only else longest, longest)
        if kernel is not None and children:
            which = "end query" if ends_only else "query"
            prefix_call = PrefixCall(
                moved[f"{which} rows"],
                moved["key rows"],
                Spans(
                    moved[f"{which} offsets"],
                    moved["key offsets"],
                    max(sum(_length(span.queries) for span in group.spans) for group in continuations),
                    max(len(group.prefix) for group in continuations),
                ),
            )
        return PackedLayout(not ends_only, roots, continuations, masks, kernel, own_spans, prefix_call)

    return DeviceBatch(
        moved["ids"],
        moved["positions"],
        moved["ends"],
        moved["sequences"],
        layout(ends_only=False),
        layout(ends_only=True),
    )


def upload(rows: dict[str, Rows], device: torch.device) -> Tensor:
    """Start to move numbers to a device, all in one tensor."""
    flat = torch.from_numpy(np.concatenate(list(rows.values())).astype(np.int32, copy=False))
    # Elsewhere a copy that is not waited for may read memory that was given back meanwhile.
    return flat.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else flat.to(device)


def views(rows: dict[str, Rows], uploaded: Tensor) -> dict[str, Tensor]:
    """Return what `upload` joined, by name."""
    pieces = torch.split(uploaded, [len(part) for part in rows.values()])
    return dict(zip(rows, pieces, strict=True))


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _children(segments: tuple[Segment, ...]) -> dict[int, list[int]]:
    """Return the segments that continue each segment which any do."""
    children: dict[int, list[int]] = {}
    for i, segment in enumerate(segments):
        if segment.parent is not None:
            children.setdefault(segment.parent, []).append(i)
    return children


def _prefixes(segments: tuple[Segment, ...]) -> dict[int, Rows]:
    """Return the rows before the children of each segment that has any, by segment index."""
    rows: dict[int, Rows] = {}
    for segment in segments:
        index = segment.parent
        if index is None or index in rows:
            continue
        parent = segments[index]
        own = np.arange(parent.start, parent.stop, dtype=np.int32)
        # A parent that has a parent is itself a child, so its own prefix stands in `rows` already.
        rows[index] = own if parent.parent is None else np.concatenate([rows[parent.parent], own])
    return rows


def _filled(rows: Rows, count: int) -> Rows:
    filled = np.zeros(count, dtype=np.int32)
    filled[: len(rows)] = rows
    return filled


def _offsets(lengths: list[int]) -> Rows:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
