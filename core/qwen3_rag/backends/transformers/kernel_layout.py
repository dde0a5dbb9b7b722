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

    `own` are all queries, `end` those of segments' last tokens, `seen` the keys of a single call; of a second
    call `prefix` are the keys, `query` and `end query` the queries.
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
    lengths = [segment.stop - segment.start for segment in segments]
    longest_own = max(lengths) if longest is None else longest
    shares = "seen rows" in moved or "prefix rows" in moved
    seen_lengths = [length_of(runs) for runs in chains(segments)] if shares else lengths
    longest_seen, keys = longest_own, "own offsets"
    if "seen rows" in moved:
        longest_seen, keys = max(seen_lengths), "seen offsets"
    families = _children(segments) if "prefix rows" in moved else {}
    longest_family = max((sum(lengths[i] for i in family) for family in families.values()), default=0)
    largest_family = max(map(len, families.values()), default=0)
    longest_prefix = max((seen_lengths[parent] for parent in families), default=0)

    def prefix_call(queries: str, longest_query: int) -> PrefixCall | None:
        if not families:
            return None
        offsets = moved[f"{queries} offsets"], moved["prefix offsets"]
        spans = Spans(*offsets, longest_query, longest_prefix)
        return PrefixCall(moved[f"{queries} rows"], moved["prefix rows"], spans)

    def layout(queries: str, longest_query: int, call: PrefixCall | None, *, is_causal: bool) -> KernelLayout:
        spans = Spans(moved[f"{queries} offsets"], moved[keys], longest_query, longest_seen)
        return KernelLayout(kernel, is_causal, spans, moved.get("seen rows"), call)

    return (
        layout("own", longest_own, prefix_call("query", longest_family), is_causal=True),
        layout("end", 1, prefix_call("end query", largest_family), is_causal=False),
    )


def _children(segments: tuple[Segment, ...]) -> dict[int, list[int]]:
    """Return, for each segment that others continue, those that do."""
    children: dict[int, list[int]] = {}
    for i, segment in enumerate(segments):
        if segment.parent is not None:
            children.setdefault(segment.parent, []).append(i)
    return children
