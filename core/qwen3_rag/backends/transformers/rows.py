"""Rows of a packed batch, as numbers that index its tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.plan import Segment

Rows = NDArray[np.int32]

Runs = list[tuple[int, int]]
"""First row and the row behind the last, of consecutive rows each."""


def chains(segments: tuple[Segment, ...]) -> list[Runs]:
    """Return for each segment the runs that its last token sees: those before it, root first, and its own."""
    found: list[Runs] = []
    for segment in segments:
        before = [] if segment.parent is None else found[segment.parent]
        found.append([*before, (segment.start, segment.stop)])
    return found


def rows_of(runs: Runs) -> Rows:
    """Return all rows of runs, one run after another."""
    starts, stops = np.array(runs, dtype=np.int32).reshape(-1, 2).T
    lengths = stops - starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before.astype(np.int32), lengths) + np.arange(lengths.sum(), dtype=np.int32)


def length_of(runs: Runs) -> int:
    """Return how many rows runs have."""
    return sum(stop - start for start, stop in runs)


def offsets_of(lengths: Sequence[int]) -> Rows:
    """Return where parts of these lengths start in a row of all, and its end; shape (n + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
