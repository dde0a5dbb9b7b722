"""Which hypothesis reproduces the numbers? Pure numpy.

An answer is right when it is near the reference and no known fault comes clearly nearer: servers
compute in bfloat16 or float16, whose rounding can be as large as what a lost line end changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLEARLY_NEARER: Final = 3.0
"""A fault explains numbers that are near the reference only if it comes so many times nearer."""


@dataclass(frozen=True)
class Hypothesis:
    """What would come back if something were so.

    Attributes:
        faults: names in `faults.FAULTS`; none for a right server.
        predicted: embedding: unit vectors (n, d). Reranking: what is answered, (n,).
    """

    faults: tuple[str, ...]
    predicted: Floats


@dataclass(frozen=True)
class Match:
    """How far the numbers are from a hypothesis.

    Attributes:
        faults: of the hypothesis.
        largest: largest distance of any text.
        typical: root of the mean square distance.
    """

    faults: tuple[str, ...]
    largest: float
    typical: float


def distances(observed: Floats, predicted: Floats) -> Floats:
    """Return one distance per text: between unit vectors (0 to 2), or of scores."""
    difference: Floats = np.abs(observed - predicted)
    if difference.ndim == 1:
        return difference
    lengths: Floats = np.linalg.norm(difference, axis=1)
    return lengths


def match(observed: Floats, hypothesis: Hypothesis) -> Match:
    """Measure one hypothesis."""
    found = distances(observed, hypothesis.predicted)
    return Match(hypothesis.faults, float(found.max()), float(np.sqrt((found**2).mean())))


def best_match(observed: Floats, hypotheses: Iterable[Hypothesis]) -> Match | None:
    """Return the nearest hypothesis; of those equally near the one with the fewest faults."""
    matches = [match(observed, hypothesis) for hypothesis in hypotheses]
    if not matches:
        return None
    nearest = min(found.typical for found in matches)
    close = [found for found in matches if found.typical <= 1.1 * nearest + 1e-6]
    return min(close, key=lambda found: len(found.faults))


def explains(fault: Match, right: Match, tolerance: float) -> bool:
    """Whether a fault accounts for the numbers better than their being right does.

    Args:
        fault: nearest hypothesis with a fault.
        right: the reference itself.
        tolerance: largest distance that passes.
    """
    return fault.largest <= tolerance and fault.typical * CLEARLY_NEARER <= right.typical


def limits_below(longest: int) -> Iterator[int]:
    """Yield the limits on tokens that are tried: powers of two from 32, less than the longest input."""
    return (1 << power for power in range(5, (longest - 1).bit_length()))


def replaced(right: Floats, positions: Sequence[int], others: Floats) -> Floats:
    """Return `right` with other rows at some positions."""
    rows = right.copy()
    rows[list(positions)] = others
    return rows


def permutation(observed: Floats, right: Floats, tolerance: float) -> list[int] | None:
    """Return for each answer the text that it belongs to, when that is another order; else None."""
    if observed.ndim == 1:
        order = np.empty(len(observed), dtype=np.int64)
        order[np.argsort(observed, kind="stable")] = np.argsort(right, kind="stable")
    else:
        order = np.linalg.norm(observed[:, None] - right[None], axis=2).argmin(axis=1)
    if sorted(order.tolist()) != list(range(len(right))) or (order == np.arange(len(right))).all():
        return None
    return order.tolist() if distances(observed, right[order]).max() <= tolerance else None
