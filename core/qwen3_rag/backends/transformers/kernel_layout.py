"""Which queries see which keys, as spans of a varlen kernel.

Where a batch shares prefixes, the keys and values that each segment sees, its prefix's and its own, are copied
one after another, so that one call computes all segments. For long prefixes before short segments that would
copy too much: there a second call attends to the prefixes, and both outputs are merged by their log-sum-exp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from qwen3_rag.backends.transformers.kernels import Spans, VarlenKernel
from qwen3_rag.backends.transformers.rows import Rows, chains, length_of, offsets_of, rows_of
from qwen3_rag.plan import Segment

_MOST_KEYS_PER_TOKEN: Final = 4
"""Most keys that are copied, per token of the batch. Counted, not measured: for a token of the 0.6B model a key
and its value are 8 KB to read and write, a second call and the merge some 58 KB and twelve more operations a
layer. Up to this many the activations stay within `activation_bytes_per_token`."""


@dataclass(frozen=True)
class PrefixCall:
    """The second varlen call: continuations' queries over their prefixes' keys.

    Attributes:
        query_rows: int32, shape (queries,); the continuations' queries, grouped by prefix.
        key_rows: int32, shape (keys,); the rows of the prefixes, in the same order.
        spans: one span per prefix.
    """

    query_rows: Tensor
    key_rows: Tensor
    spans: Spans


@dataclass(frozen=True)
class KernelLayout:
    """Each query attends to its prefix and, causally, to its own segment.

    Attributes:
        kernel: FlashAttention over spans.
        is_causal: a span's queries are its last tokens, each of which sees the keys up to its own; False: one
            query, which sees all keys.
        spans: one per segment, over the segment's own keys and, with `key_rows`, its prefix's before them.
        key_rows: int32, shape (keys,); the rows of the spans' keys, one span after another; None: all rows in
            order.
        prefix_call: over the prefixes; None where `spans` include them, or there are none.
    """

    kernel: VarlenKernel
    is_causal: bool
    spans: Spans
    key_rows: Tensor | None
    prefix_call: PrefixCall | None


def kernel_rows(segments: tuple[Segment, ...]) -> dict[str, Rows]:
    """Return the row indices and offsets of a batch's calls, by name.

    - `own offsets`, `end offsets`: each segment's queries, for all its tokens and for its last alone. Its keys
      are at `own offsets` too, unless a single call sees prefixes.
    - `seen rows`, `seen offsets`: the keys of such a call.
    - `prefix rows`, `prefix offsets`: the keys of a second call, over the prefixes.
    - `query rows`, `query offsets`, `end query rows`, `end query offsets`: its queries, for all tokens and for
      segments' last.
    """
    lengths = [segment.stop - segment.start for segment in segments]
    rows = {
        "own offsets": offsets_of(lengths),
        "end offsets": np.arange(len(segments) + 1, dtype=np.int32),
    }
    if all(segment.parent is None for segment in segments):
        return rows
    seen = chains(segments)
    seen_lengths = [length_of(runs) for runs in seen]
    if sum(seen_lengths) <= _MOST_KEYS_PER_TOKEN * sum(lengths):
        rows["seen rows"] = rows_of([run for runs in seen for run in runs])
        rows["seen offsets"] = offsets_of(seen_lengths)
        return rows
    children = _children(segments)
    families = list(children.values())
    rows["prefix rows"] = rows_of([run for parent in children for run in seen[parent]])
    rows["prefix offsets"] = offsets_of([seen_lengths[parent] for parent in children])
    rows["query rows"] = rows_of([seen[i][-1] for family in families for i in family])
    rows["query offsets"] = offsets_of([sum(lengths[i] for i in family) for family in families])
    rows["end query rows"] = np.array([i for family in families for i in family], dtype=np.int32)
    rows["end query offsets"] = offsets_of([len(family) for family in families])
    return rows


def kernel_layouts(
    segments: tuple[Segment, ...], moved: dict[str, Tensor], kernel: VarlenKernel, longest: int | None
) -> tuple[KernelLayout, KernelLayout]:
    """Return the layouts of attention from all tokens and from each segment's last.

    Args:
        segments: of the batch.
        moved: `kernel_rows`, on the device.
        kernel: FlashAttention over spans.
        longest: an upper bound of the segments' lengths, for the kernel; None: the longest segment's.
    """
    longest_own = max(segment.stop - segment.start for segment in segments) if longest is None else longest
    key_rows, key_offsets, longest_key = None, moved["own offsets"], longest_own
    if "seen rows" in moved:
        key_rows, key_offsets = moved["seen rows"], moved["seen offsets"]
        longest_key = max(map(length_of, chains(segments)))
    spans = Spans(moved["own offsets"], key_offsets, longest_own, longest_key)
    end_spans = Spans(moved["end offsets"], key_offsets, 1, longest_key)
    call, end_call = _prefix_calls(segments, moved) if "prefix rows" in moved else (None, None)
    return (
        KernelLayout(kernel, is_causal=True, spans=spans, key_rows=key_rows, prefix_call=call),
        KernelLayout(kernel, is_causal=False, spans=end_spans, key_rows=key_rows, prefix_call=end_call),
    )


def _prefix_calls(segments: tuple[Segment, ...], moved: dict[str, Tensor]) -> tuple[PrefixCall, PrefixCall]:
    """Return the second calls of both layouts; arguments as for `kernel_layouts`."""
    lengths = [segment.stop - segment.start for segment in segments]
    seen, families = chains(segments), _children(segments)
    longest_prefix = max(length_of(seen[parent]) for parent in families)
    most_queries = max(sum(lengths[i] for i in family) for family in families.values())
    most_ends = max(map(len, families.values()))

    def prefix_call(queries: str, longest_query: int) -> PrefixCall:
        offsets = moved[f"{queries} offsets"], moved["prefix offsets"]
        spans = Spans(*offsets, longest_query, longest_prefix)
        return PrefixCall(moved[f"{queries} rows"], moved["prefix rows"], spans)

    return prefix_call("query", most_queries), prefix_call("end query", most_ends)


def _children(segments: tuple[Segment, ...]) -> dict[int, list[int]]:
    """Return, for each segment that others continue, those that do."""
    children: dict[int, list[int]] = {}
    for i, segment in enumerate(segments):
        if segment.parent is not None:
            children.setdefault(segment.parent, []).append(i)
    return children
