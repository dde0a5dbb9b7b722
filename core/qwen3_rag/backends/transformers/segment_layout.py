"""Which queries see which keys, segment by segment, for attention without a varlen kernel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qwen3_rag.backends.transformers.masks import CausalMasks
from qwen3_rag.backends.transformers.rows import Rows, chains, rows_of
from qwen3_rag.plan import Segment


@dataclass(frozen=True)
class Span:
    """One segment's rows.

    Attributes:
        queries: rows of the query tensor: all computed tokens of the segment, or its last token.
        keys: rows of the key and value tensors, which start with the cached prefix.
    """

    queries: slice
    keys: slice


@dataclass(frozen=True)
class Continuations:
    """All segments that continue the same prefix.

    Attributes:
        prefix: int32, shape (prefix_tokens,); key rows of the prefix, root first.
        spans: the continuations.
    """

    prefix: Tensor
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class SegmentLayout:
    """Each query attends to its prefix and, causally, to its own segment.

    Attributes:
        is_causal: a segment's queries are its last tokens, each of which sees the keys up to its own; False:
            the query is the last token alone, which sees all keys.
        roots: segments without a prefix.
        continuations: the other segments, by prefix.
        masks: of causal attention.
    """

    is_causal: bool
    roots: tuple[Span, ...]
    continuations: tuple[Continuations, ...]
    masks: CausalMasks


def segment_rows(segments: tuple[Segment, ...]) -> dict[str, Rows]:
    """Return `prefix I` for each segment I that others continue: rows of its prefix and its own, root first."""
    before = chains(segments)
    parents = sorted({segment.parent for segment in segments if segment.parent is not None})
    return {f"prefix {parent}": rows_of(before[parent]) for parent in parents}


def segment_layouts(
    segments: tuple[Segment, ...], moved: dict[str, Tensor], past_tokens: int
) -> tuple[SegmentLayout, SegmentLayout]:
    """Return the layouts of attention from all tokens and from each segment's last.

    Args:
        segments: of the batch.
        moved: `segment_rows` and `ids`, on the device.
        past_tokens: leading tokens of the first segment that are cached and not computed.
    """
    masks = CausalMasks(moved["ids"].device)
    all_tokens = [slice(max(s.start - past_tokens, 0), s.stop - past_tokens) for s in segments]
    last_tokens = [slice(i, i + 1) for i in range(len(segments))]

    def layout(queries: list[slice], *, is_causal: bool) -> SegmentLayout:
        roots: list[Span] = []
        children: dict[int, list[Span]] = {}
        for own, segment in zip(queries, segments, strict=True):
            family = roots if segment.parent is None else children.setdefault(segment.parent, [])
            family.append(Span(own, slice(segment.start, segment.stop)))
        continuations = [Continuations(moved[f"prefix {p}"], tuple(spans)) for p, spans in children.items()]
        return SegmentLayout(is_causal, tuple(roots), tuple(continuations), masks)

    return layout(all_tokens, is_causal=True), layout(last_tokens, is_causal=False)
