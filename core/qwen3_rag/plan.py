"""Which tokens pass through the model, in which batch. Pure: arrays in, arrays out.

Sequences are sorted so that those with a common prefix are neighbours, and every common prefix worth sharing
becomes one *segment* that is computed once; each continuation is a segment of its own that attends to the chain
of segments before it. A batch is one row of such segments, with no padding. Prefixes are found in the actual
token sequences, so sharing is right whatever the tokenizer merged where a template meets a text.

Example, if prefixes that short were shared: two prompts ``T T T Q a a`` and ``T T T Q b`` become the row
``T T T Q | a a | b`` with positions ``0 1 2 3 | 4 5 | 4``: seven tokens computed instead of eleven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise, takewhile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.tokens import TokenIds, common_prefix

MIN_SHARED_TOKENS: Final = 8
"""A common prefix that saves fewer tokens than this is not shared: each segment costs one more attention call
per layer. Chosen, not tuned."""

MAX_PREFIX_DEPTH: Final = 4
"""Longest chain of segments before a continuation. Template, instruction and query need two; the limit bounds
the number of attention calls for texts that nest more deeply. Chosen, not tuned."""

MAX_OVERFILL: Final = 9 / 8
"""A batch or round may exceed its budget by up to this factor if that leaves nothing over: a batch of a few
tokens takes as long as one of hundreds, since all weights are read. Callers' token counts are estimates.
Chosen, not tuned."""

_Node = tuple[int, int, int]
"""A node of the prefix tree: a stretch of one or more sequences, as (index of the first sorted sequence that
has it, start, stop)."""


@dataclass(frozen=True)
class Segment:
    """A run of tokens in the packed row that is causal within itself.

    Attributes:
        start, stop: rows of the packed batch.
        parent: index of the segment that precedes this one in its sequences, or None. Parents come before their
            children, and a segment's descendants follow it without a gap.
    """

    start: int
    stop: int
    parent: int | None


@dataclass(frozen=True)
class PackedBatch:
    """One row of tokens for the model.

    Attributes:
        token_ids: int32, shape (tokens,).
        position_ids: int32, shape (tokens,); each token's position in its own sequence.
        segments: the segments of the row, in row order.
        last_rows: int64, shape (n,); the row of each sequence's last token.
        sequences: int64, shape (n,); which of the planned sequences these are.
        computed: int64, shape (n,); tokens that each sequence added to the row. Sums to the row's length.
    """

    token_ids: TokenIds
    position_ids: NDArray[np.int32]
    segments: tuple[Segment, ...]
    last_rows: NDArray[np.int64]
    sequences: NDArray[np.int64]
    computed: NDArray[np.int64]


@dataclass(frozen=True)
class SortedSequences:
    """Sequences in an order that makes those with common prefixes neighbours.

    Attributes:
        order: int64, shape (n,); the sorted sequences as indices into the given ones.
        lengths: int64, shape (n,); of the sorted sequences.
        paths: the nodes of the prefix tree that each sorted sequence consists of, which cover it without a gap.
    """

    order: NDArray[np.int64]
    lengths: NDArray[np.int64]
    paths: list[list[_Node]]

    @property
    def cost(self) -> NDArray[np.int64]:
        """Tokens each sequence adds to a batch that already holds the previous one; an upper bound if the batch
        holds only some of them. int64, shape (n,)."""
        return np.array(
            [
                sum(stop - start for first, start, stop in path if (first, start, stop) not in before)
                for before, path in pairwise([[], *self.paths])
            ],
            dtype=np.int64,
        )


def sort_sequences(sequences: Sequence[TokenIds], *, share_prefixes: bool = True) -> SortedSequences:
    """Sort token sequences lexicographically and find the common prefixes worth sharing.

    Args:
        sequences: token sequences, none empty.
        share_prefixes: False gives every sequence a path of one node of its own.
    """
    order = np.array(
        sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">u4").tobytes()), dtype=np.int64
    )
    shared = np.zeros(len(order), dtype=np.int64)
    lengths = np.array([len(sequences[i]) for i in order], dtype=np.int64)
    if share_prefixes:
        for i in range(1, len(order)):
            shared[i] = common_prefix(sequences[order[i - 1]], sequences[order[i]])
    return SortedSequences(order, lengths, _paths(lengths, shared))


def plan_batches(
    sequences: Sequence[TokenIds], *, token_budget: int, share_prefixes: bool = True
) -> Iterator[PackedBatch]:
    """Pack sequences into batches of at most `token_budget` tokens.

    A batch has more only if one sequence alone is longer, or to take along the last sequences, if they exceed
    the budget by an eighth at most (`MAX_OVERFILL`). Every sequence is in exactly one batch; identical ones are
    computed once within a batch.

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
            added = int(cost[last] if last > first else ordered.lengths[last])
            is_full = tokens + added > token_budget and tokens + rest[last] > token_budget * MAX_OVERFILL
            if last > first and added and is_full:
                break
            tokens += added
            last += 1
        yield _pack(sequences, ordered.order[first:last], paths[first:last])
        first = last


def _paths(lengths: NDArray[np.int64], shared: NDArray[np.int64]) -> list[list[_Node]]:
    """Divide each sorted sequence into nodes of the prefix tree; sequences with a common prefix share them.

    The last node of a path is the sequence's own. It is empty if the sequence ends with a node that others
    continue.

    Args:
        lengths: int64, shape (n,); of the sorted sequences.
        shared: int64, shape (n,); common prefix of each sequence with the previous one.
    """
    paths: list[list[_Node]] = [[] for _ in lengths]
    # In sorted order a sequence follows those that it continues: one all of whose tokens the previous one has
    # is identical to it.
    same = shared == lengths
    todo = [(0, len(lengths), 0)] if paths else []
    while todo:
        low, high, depth = todo.pop()
        if high - low == 1:
            paths[low].append((low, depth, int(lengths[low])))
            continue
        common = int(shared[low + 1 : high].min())
        if same[low + 1 : high].all():
            # Identical sequences share their last node.
            for i in range(low, high):
                paths[i].append((low, depth, common))
            continue
        if common - depth >= MIN_SHARED_TOKENS and len(paths[low]) < MAX_PREFIX_DEPTH:
            for i in range(low, high):
                paths[i].append((low, depth, common))
            depth = common
        # Split where neighbours share too little beyond `depth` to be worth a segment.
        joined = same[low + 1 : high].copy()
        if len(paths[low]) < MAX_PREFIX_DEPTH:
            joined |= shared[low + 1 : high] - depth >= MIN_SHARED_TOKENS
        cuts = [low, *(low + 1 + np.flatnonzero(~joined)).tolist(), high]
        todo.extend((start, stop, depth) for start, stop in pairwise(cuts))
    return paths


def _pack(sequences: Sequence[TokenIds], order: NDArray[np.int64], paths: list[list[_Node]]) -> PackedBatch:
    row = _Row(Counter(chain.from_iterable(paths)))
    added = [row.add(sequences[i], path) for i, path in zip(order, paths, strict=True)]
    last_rows, computed = np.array(added, dtype=np.int64).T.copy()
    return PackedBatch(
        np.concatenate(row.token_ids),
        np.concatenate(row.position_ids),
        tuple(row.segments),
        last_rows,
        order.copy(),
        computed,
    )


class _Row:
    """A packed row that grows by one sequence at a time, in sorted order.

    Args:
        users: how many of the row's sequences have each node.

    Attributes:
        token_ids, position_ids: int32; parts to concatenate.
        segments: of the row so far.
    """

    def __init__(self, users: Mapping[_Node, int]) -> None:
        self.token_ids: list[TokenIds] = []
        self.position_ids: list[NDArray[np.int32]] = []
        self.segments: list[Segment] = []
        self._users = users
        self._length = 0
        # The path of the previous sequence, each node with its segment.
        self._open: list[tuple[_Node, int | None]] = []

    def add(self, tokens: TokenIds, path: list[_Node]) -> tuple[int, int]:
        """Append the tokens of a sequence that the row lacks.

        Returns:
            The row of its last token, and how many tokens were appended.
        """
        is_same = (node == previous for node, (previous, _) in zip(path, self._open, strict=False))
        common = sum(takewhile(bool, is_same))
        del self._open[common:]
        before = self._length
        for depth in range(common, len(path)):
            self._append(tokens, path[depth], previous=path[depth - 1] if depth > common else None)
        last = self._open[-1][1]
        assert last is not None, "sequences are never empty"
        return self.segments[last].stop - 1, self._length - before

    def _append(self, tokens: TokenIds, node: _Node, previous: _Node | None) -> None:
        """Append one node; `previous` is its parent node if that was appended just now."""
        _, start, stop = node
        parent = self._open[-1][1] if self._open else None
        end = self._length + stop - start
        segment: int | None
        if start == stop:
            segment = parent
        elif parent is not None and previous is not None and self._users[node] == self._users[previous]:
            # No other sequence of this batch continues the parent's segment, so the node extends it.
            self.segments[parent] = replace(self.segments[parent], stop=end)
            segment = parent
        else:
            self.segments.append(Segment(self._length, end, parent))
            segment = len(self.segments) - 1
        self.token_ids.append(tokens[start:stop])
        self.position_ids.append(np.arange(start, stop, dtype=np.int32))
        self._length = end
        self._open.append((node, segment))
