"""Row indices of a packed batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.plan import Segment

Rows = NDArray[np.int32]
"""Indices into a tensor's first axis, or offsets; shape (n,)."""

Runs = list[tuple[int, int]]
"""Runs of consecutive rows: start and stop of each."""


def chains(segments: tuple[Segment, ...]) -> list[Runs]:
    """Return the runs that each segment's last token sees: those of its prefix, root first, and its own."""
    found: list[Runs] = []
    for segment in segments:
        before = [] if segment.parent is None else found[segment.parent]
        found.append([*before, (segment.start, segment.stop)])
    return found


def rows_of(runs: Runs) -> Rows:
    """Return the rows of all runs, concatenated."""
    starts, stops = np.array(runs, dtype=np.int32).reshape(-1, 2).T
    lengths = stops - starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before.astype(np.int32), lengths) + np.arange(lengths.sum(), dtype=np.int32)


def length_of(runs: Runs) -> int:
    """Return how many rows runs have."""
    return sum(stop - start for start, stop in runs)


def offsets_of(lengths: Sequence[int]) -> Rows:
    """Return the cumulative offsets of n concatenated parts, from 0 to their total; shape (n + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
