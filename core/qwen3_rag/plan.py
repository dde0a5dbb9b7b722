"""Which tokens pass through the model, in which batch. Pure: arrays in, arrays out.

Sequences are sorted so that those with a common beginning are neighbours, and every common
beginning worth it becomes one *segment* that is computed once; each continuation is a segment of
its own that attends to the chain of segments before it. A batch is one row of such segments, with
no padding. Prefixes are found in the real token sequences, so sharing is right whatever the
tokenizer merged where a template meets a text.

Example: two prompts ``T T T Q a a`` and ``T T T Q b`` become the row ``T T T Q | a a | b`` with
positions ``0 1 2 3 | 4 5 | 4``: seven tokens computed in place of eleven.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.tokens import TokenIds, common_prefix

MIN_SHARED_TOKENS: Final = 8
"""A common beginning that adds fewer tokens than this is recomputed: each segment costs one more
attention call per layer. Chosen, not tuned."""

MAX_PREFIX_DEPTH: Final = 4
"""Longest chain of segments before a continuation. Template, instruction and query need two; the
limit keeps the number of attention calls bounded for texts that nest without end."""

MAX_OVERFILL: Final = 9 / 8
"""A batch or round may exceed its budget by up to this factor if that leaves nothing over: a batch of a few
tokens takes as long as one of hundreds, since all weights are read. Callers estimate what prompts add, and may
be off."""


@dataclass(frozen=True)
class Segment:
    """A run of tokens in the packed row that is causal within itself.

    Attributes:
        start, stop: rows of the packed batch.
        parent: index of the segment that comes before this one in its sequences, or None. Parents
            precede their children, and a segment's descendants follow it without a gap.
    """

    start: int
    stop: int
    parent: int | None


@dataclass(frozen=True)
class PackedBatch:
    """One row of tokens for the model.

    Attributes:
        token_ids: int32, shape (tokens,).
        position_ids: int32, shape (tokens,), each token's place in its own sequence.
        segments: the row, cut into segments in row order.
        last_rows: int64, shape (n,); the row of each sequence's last token.
        sequences: int64, shape (n,); which of the planned sequences these are.
        computed: int64, shape (n,); tokens of the row that each sequence brought in. Sums to the
            row's length.
    """

    token_ids: TokenIds
    position_ids: NDArray[np.int32]
    segments: tuple[Segment, ...]
    last_rows: NDArray[np.int64]
    sequences: NDArray[np.int64]
    computed: NDArray[np.int64]


@dataclass(frozen=True)
class SortedSequences:
    """Sequences in an order that makes common beginnings neighbours.

    Attributes:
        order: int64, shape (n,); the sorted sequences as indices into the given ones.
        lengths: int64, shape (n,); of the sorted sequences.
        paths: the nodes of the prefix tree that each sorted sequence consists of.
    """

    order: NDArray[np.int64]
    lengths: NDArray[np.int64]
    paths: list[list[_Node]]

    @property
    def cost(self) -> NDArray[np.int64]:
        """int64, shape (n,); tokens that each adds to a batch that holds the one before; at most that many
        if the batch holds only some of the sequences."""
        added = [_added(path, before) for before, path in pairwise([[], *self.paths])]
        return np.array(added, dtype=np.int64)


def sort_sequences(sequences: Sequence[TokenIds], *, share_prefixes: bool = True) -> SortedSequences:
    """Sort token sequences lexicographically and find what is worth sharing.

    Args:
        sequences: token sequences, none empty.
        share_prefixes: False gives every sequence a path of its own.
    """
    order = np.array(
        sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">u4").tobytes()), dtype=np.int64
    )
    shared = np.zeros(len(order), dtype=np.int64)
    lengths = np.array([len(sequences[i]) for i in order], dtype=np.int64)
    if share_prefixes:
        for place in range(1, len(order)):
            shared[place] = common_prefix(sequences[order[place - 1]], sequences[order[place]])
    return SortedSequences(order, lengths, _paths(lengths, shared))


def _added(path: list[_Node], before: list[_Node]) -> int:
    return sum(stop - start for node, start, stop in path if (node, start, stop) not in before)


def plan_batches(
    sequences: Sequence[TokenIds], *, token_budget: int, share_prefixes: bool = True
) -> Iterator[PackedBatch]:
    """Pack sequences into batches of about `token_budget` tokens.

    A batch has more only by a last part that is too small to be one (an eighth of the budget), or if one
    sequence alone is longer. Every sequence is in exactly one batch; identical ones are computed once
    within a batch.

    Args:
        sequences: token sequences, none empty.
        token_budget: tokens of one batch, shared prefixes counted once.
        share_prefixes: False computes every sequence in full, on its own.
    """
    ordered = sort_sequences(sequences, share_prefixes=share_prefixes)
    paths = ordered.paths
    cost = ordered.cost
    rest = cost[::-1].cumsum()[::-1]
    first = 0
    while first < len(paths):
        last, tokens = first, 0
        while last < len(paths):
            added = int(cost[last]) if last > first else _added(paths[last], [])
            is_full = tokens + added > token_budget and tokens + rest[last] > token_budget * MAX_OVERFILL
            if last > first and added and is_full:
                break
            tokens += added
            last += 1
        yield _pack(sequences, ordered.order[first:last], paths[first:last])
        first = last


_Node = tuple[int, int, int]
"""A stretch of one or more sequences: (place of the first sequence having it, start, stop)."""


def _paths(lengths: NDArray[np.int64], shared: NDArray[np.int64]) -> list[list[_Node]]:
    """Cut each sorted sequence into the nodes of the prefix tree; equal nodes are shared.

    The last node of a path is the sequence's own, and may be empty where the sequence ends with a
    node that others continue.
    """
    paths: list[list[_Node]] = [[] for _ in lengths]
    same = shared == lengths
    same[1:] &= lengths[1:] == lengths[:-1]
    todo = [(0, len(lengths), 0)] if paths else []
    while todo:
        low, high, depth = todo.pop()
        if high - low == 1:
            paths[low].append((low, depth, int(lengths[low])))
            continue
        common = int(shared[low + 1 : high].min())
        if same[low + 1 : high].all():
            # Identical sequences have one node for their own.
            for place in range(low, high):
                paths[place].append((low, depth, common))
            continue
        if common - depth >= MIN_SHARED_TOKENS and len(paths[low]) < MAX_PREFIX_DEPTH:
            for place in range(low, high):
                paths[place].append((low, depth, common))
            depth = common
        # Split where neighbours share too little beyond `depth` to be worth a segment.
        joined = same[low + 1 : high].copy()
        if len(paths[low]) < MAX_PREFIX_DEPTH:
            joined |= shared[low + 1 : high] - depth >= MIN_SHARED_TOKENS
        cuts = [low, *(low + 1 + np.flatnonzero(~joined)).tolist(), high]
        todo.extend((start, stop, depth) for start, stop in pairwise(cuts))
    return paths


def _pack(sequences: Sequence[TokenIds], order: NDArray[np.int64], paths: list[list[_Node]]) -> PackedBatch:
    users: dict[_Node, int] = {}
    for path in paths:
        for node in path:
            users[node] = users.get(node, 0) + 1

    segments: list[Segment] = []
    pieces: list[TokenIds] = []
    positions: list[NDArray[np.int32]] = []
    last_rows: list[int] = []
    computed: list[int] = []
    open_path: list[_Node] = []
    open_segments: list[int | None] = []
    row = 0
    for index, path in zip(order, paths, strict=True):
        keep = 0
        while keep < min(len(path), len(open_path)) and path[keep] == open_path[keep]:
            keep += 1
        del open_path[keep:], open_segments[keep:]
        before = row
        for depth in range(keep, len(path)):
            node = path[depth]
            parent = open_segments[-1] if open_segments else None
            _, start, stop = node
            if start == stop:
                segment = parent
            elif parent is not None and depth > keep and users[node] == users[path[depth - 1]]:
                # Within this batch nobody else continues the segment before: one segment is enough.
                segments[parent] = Segment(segments[parent].start, row + stop - start, segments[parent].parent)
                segment = parent
            else:
                segments.append(Segment(row, row + stop - start, parent))
                segment = len(segments) - 1
            pieces.append(sequences[index][start:stop])
            positions.append(np.arange(start, stop, dtype=np.int32))
            row += stop - start
            open_path.append(node)
            open_segments.append(segment)
        final = open_segments[-1]
        assert final is not None, "sequences are never empty"
        last_rows.append(segments[final].stop - 1)
        computed.append(row - before)
    return PackedBatch(
        np.concatenate(pieces),
        np.concatenate(positions),
        tuple(segments),
        np.array(last_rows, dtype=np.int64),
        order.copy(),
        np.array(computed, dtype=np.int64),
    )
