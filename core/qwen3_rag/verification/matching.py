"""Which hypothesis reproduces the numbers best? Pure numpy.

An answer is right if it is near the reference and no known fault comes clearly nearer. Distance alone does not
tell: servers compute in bfloat16 or float16, whose rounding can be as large as the effect of a lost newline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLEARLY_NEARER: Final = 3.0
"""Factor by which a fault must come nearer than the reference to explain the numbers. Chosen, not tuned."""


@dataclass(frozen=True)
class Hypothesis:
    """What a server with certain faults would answer.

    Attributes:
        faults: names in `faults.FAULTS`; none for a right server.
        predicted: float32; embedding: unit vectors (n, d). Reranking: raw scores (n,).
    """

    faults: tuple[str, ...]
    predicted: Floats


@dataclass(frozen=True)
class Match:
    """How far the numbers are from a hypothesis.

    Attributes:
        faults: of the hypothesis.
        largest: largest distance over the texts.
        typical: root mean square distance.
    """

    faults: tuple[str, ...]
    largest: float
    typical: float


def distances(observed: Floats, predicted: Floats) -> Floats:
    """Return one distance per text, (n,): between unit vectors (0 to 2), or of scores."""
    difference: Floats = np.abs(observed - predicted)
    if difference.ndim == 1:
        return difference
    lengths: Floats = np.linalg.norm(difference, axis=1)
    return lengths


def match(observed: Floats, hypothesis: Hypothesis) -> Match:
    """Measure one hypothesis."""
    found = distances(observed, hypothesis.predicted)
    return Match(hypothesis.faults, float(found.max()), float(np.sqrt((found**2).mean())))


def best_match(observed: Floats, hypotheses: Iterable[Hypothesis]) -> Match:
    """Return the nearest of at least one hypothesis; of about equal ones (10%), that with the fewest faults."""
    matches = [match(observed, hypothesis) for hypothesis in hypotheses]
    nearest = min(found.typical for found in matches)
    close = [found for found in matches if found.typical <= 1.1 * nearest + 1e-6]
    return min(close, key=lambda found: len(found.faults))


def explains(fault: Match, right: Match, tolerance: float) -> bool:
    """Whether a fault explains the numbers clearly better than that they are right.

    Args:
        fault: match of the nearest hypothesis with a fault.
        right: match of the reference.
        tolerance: largest distance that passes.
    """
    return fault.largest <= tolerance and fault.typical * CLEARLY_NEARER <= right.typical


def limits_below(longest: int) -> Iterator[int]:
    """Yield the token limits to try: powers of two from 32, below the longest input's length."""
    return (1 << power for power in range(5, (longest - 1).bit_length()))


def replaced(right: Floats, indices: Sequence[int], others: Floats) -> Floats:
    """Return `right` with some rows replaced by those of `others`."""
    rows = right.copy()
    rows[list(indices)] = others
    return rows


def permutation(observed: Floats, right: Floats, tolerance: float) -> list[int] | None:
    """Return for each answer the index of its text, if they are right in another order; else None."""
    if observed.ndim == 1:
        order = np.empty(len(observed), dtype=np.int64)
        order[np.argsort(observed, kind="stable")] = np.argsort(right, kind="stable")
    else:
        order = np.linalg.norm(observed[:, None] - right[None], axis=2).argmin(axis=1)
    if sorted(order.tolist()) != list(range(len(right))) or (order == np.arange(len(right))).all():
        return None
    return order.tolist() if distances(observed, right[order]).max() <= tolerance else None
