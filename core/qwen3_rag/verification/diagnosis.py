"""Findings on one set of answers, from what each known fault would give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from qwen3_rag.verification.faults import FAULTS
from qwen3_rag.verification.matching import (
    CLEARLY_NEARER,
    Floats,
    Hypothesis,
    Match,
    best_match,
    distances,
    explains,
    match,
    permutation,
)
from qwen3_rag.verification.report import Finding

EXACT: Final = 1e-4
"""Distances up to this are rounding in float32: no fault is looked for."""


def finding(fault: str, detail: str = "") -> Finding:
    """Return the finding for a known fault.

    Args:
        fault: its name.
        detail: what was seen, without a full stop.
    """
    known = FAULTS[fault]
    return Finding(fault, known.what + (f": {detail}" if detail else ""), known.fix)


def out_of_order(answered: Floats, right: Floats, tolerance: float) -> list[Finding]:
    """Return a finding if the answers are right but in another order; for answers that no fault explains."""
    order = permutation(answered, right, tolerance)
    if order is None:
        return []
    return [finding("out-of-order", f"they belong to the inputs {', '.join(map(str, order))}, counted from 0")]


def not_finite(answered: Floats) -> Finding | None:
    """Return a finding if there are NaN or infinite numbers."""
    finite = np.isfinite(answered.reshape(len(answered), -1)).all(axis=1)
    if finite.all():
        return None
    return finding("not-finite", f"for {int((~finite).sum())} of {len(answered)} texts")


def batch_dependence(together: Floats, alone: Floats, tolerance: float) -> Finding | None:
    """Return a finding if texts sent alone gave other numbers than in a larger request.

    Args:
        together, alone: raw answers for the same texts, of the same shape.
        tolerance: largest distance that passes, relative to the vectors' mean norm.
    """
    scale = np.linalg.norm([together, alone], axis=-1).mean() if together.ndim > 1 else 1.0
    largest = distances(together, alone).max()
    if largest <= tolerance * scale:  # not a quotient: the scale of all-zero vectors is 0
        return None
    return finding("batch-dependent", f"the largest difference is {largest / scale:.3g}")


def is_off(answered: Floats, right: Floats) -> bool:
    """Whether answers differ from the right ones by more than rounding in float32."""
    return len(right) > 0 and bool(distances(answered, right).max() > EXACT)


def diagnose(
    answered: Floats,
    right: Floats,
    faulty: Callable[[], list[Hypothesis]],
    *,
    tolerance: float,
    measure: str,
) -> list[Finding]:
    """Return what is wrong with the answers for short texts; nothing if they are right.

    Args:
        answered: unit vectors (n, d), or scores (n,).
        right: what a right server answers.
        faulty: computes what faulty servers answer, of one fault at least; called only if that is needed.
        tolerance: largest distance that passes.
        measure: "cosine" or "score": how findings state distances.
    """
    if not is_off(answered, right):
        return []
    as_right = match(answered, Hypothesis((), right))
    best = best_match(answered, faulty())
    if measure == "score":
        best = _unless_constant(best, answered)
    if explains(best, as_right, tolerance):
        numbers = _numbers(as_right, best, measure)
        return [finding(fault, numbers) for fault in best.faults]
    if as_right.largest <= tolerance:
        return []
    nearest = f"nearest, at {best.largest:.3g}, is {' and '.join(best.faults)}"
    off = int((distances(answered, right) > tolerance).sum())
    seen = f"{off} of {len(right)} short texts are off, by up to {_shown(as_right.largest, measure)}; {nearest}"
    return [finding("unexplained", seen)]


def diagnose_limit(
    answered: Floats, right: Floats, limits: list[tuple[str, Floats]], *, tolerance: float
) -> list[Finding]:
    """Return the length limit that explains wrong answers for long texts; nothing if they are right.

    Args:
        answered, right, tolerance: as `diagnose`.
        limits: at least one; description of a limit, and what a server with it answers.
    """
    as_right = match(answered, Hypothesis((), right))
    cut = best_match(answered, [Hypothesis((words,), predicted) for words, predicted in limits])
    if explains(cut, as_right, tolerance):
        return [finding("truncated", cut.faults[0])]
    if as_right.largest <= tolerance:
        return []
    seen = f"short texts are right, long ones off by up to {as_right.largest:.3g}; the limit is unknown"
    return [finding("truncated", seen)]


def lost_end(answered: Floats, right: Floats) -> list[Finding]:
    """Return a finding if texts that differ only in their last sentence get nearly the same vector.

    This finds limits that change a long text's vector by less than `tolerance`: rounding does not make two
    vectors more alike.

    Args:
        answered, right: unit vectors of the two texts, (2, d).
    """
    apart, apart_by_right = distances(answered[:1], answered[1:])[0], distances(right[:1], right[1:])[0]
    if apart_by_right <= 10 * EXACT or apart * CLEARLY_NEARER > apart_by_right:
        return []
    seen = (
        f"two long texts whose last sentences differ get vectors {apart:.2g} apart, and by right "
        f"{apart_by_right:.2g}; the limit is unknown"
    )
    return [finding("truncated", seen)]


def _unless_constant(best: Match, answered: Floats) -> Match:
    """Return the match of a fault, or that of a constant if the fault is not clearly nearer.

    Scores that are nearly all the same hold nothing of the inputs, so that any fault that gives about that
    value would seem to explain them.
    """
    middle = np.full_like(answered, (answered.min() + answered.max()) / 2)
    constant = match(answered, Hypothesis(("constant",), middle))
    return best if best.typical * CLEARLY_NEARER <= constant.typical else constant


def _numbers(right: Match, fault: Match, measure: str) -> str:
    return (
        f"their largest difference from the local reference is {_shown(right.largest, measure)}, "
        f"and {_shown(fault.largest, measure)} when this fault is assumed"
    )


def _shown(distance: float, measure: str) -> str:
    if measure == "cosine":
        return f"{distance:.2g} (cosine {1 - distance**2 / 2:.4f})"
    return f"{distance:.2g}"
