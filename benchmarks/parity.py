"""Whether a way gives the right answer. A wrong answer has no speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch

from benchmarks.ways import Floats

Kind = Literal["embedding", "reranking"]

_LEAST_COSINE: Final = {torch.bfloat16: 0.999, torch.float16: 0.999, torch.float32: 1 - 1e-6}
_LEAST_COSINE_INT8: Final = 0.99
_MOST_VECTOR_ERROR: Final = 1e-4
"""In float32, of any number of a vector."""
_MOST_LOG_ODDS_ERROR: Final = {torch.bfloat16: 0.5, torch.float16: 0.5, torch.float32: 1e-2}
_GRAIN: Final = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 1e-6}
"""Probabilities this near count as equal: the published snippet rounds its own to the element type, in which
many are exactly 1."""
_LEAST_SPREAD: Final = 0.75
"""Standard deviation of the log-odds that are compared: answers that are all alike would prove nothing."""
_LARGEST_LOG_ODDS: Final = 12.0
"""Beyond it a probability in float32 does not tell."""


@dataclass(frozen=True)
class Verdict:
    """How far an answer is from the right one.

    Attributes:
        right: whether that is near enough.
        measured: the distance, for the results.
    """

    right: bool
    measured: dict[str, Any]


def check(kind: Kind, found: Floats, expected: Floats, dtype: torch.dtype, *, int8: bool = False) -> Verdict:
    """Compare vectors by their cosines, scores by their log-odds.

    Raises:
        RuntimeError: the expected answers are too much alike to compare anything with.
    """
    if found.shape != expected.shape:
        return Verdict(False, {"shape": list(found.shape), "expected_shape": list(expected.shape)})
    if not np.isfinite(found).all():
        return Verdict(False, {"not_finite": int((~np.isfinite(found)).sum())})
    compare = _vectors if kind == "embedding" else _scores
    return compare(found, expected, dtype, int8)


def cosines(found: Floats, expected: Floats) -> Floats:
    """Of each row with the other's; vectors normalised in bfloat16 have norms that are off by a thousandth."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((found * expected).sum(axis=1) / norms, np.float32)


def _vectors(found: Floats, expected: Floats, dtype: torch.dtype, int8: bool) -> Verdict:
    alike = expected @ expected.T / np.linalg.norm(expected, axis=1) ** 2
    others = alike[~np.eye(len(expected), dtype=bool)]
    least = _LEAST_COSINE_INT8 if int8 else _LEAST_COSINE[dtype]
    if len(others) and others.min() > least:
        raise RuntimeError(f"the texts' own vectors have cosines above {others.min()}: nothing to tell apart")
    least_cosine = cosines(found, expected).min()
    error = float(np.abs(found - expected).max())
    right = least_cosine >= least and (dtype != torch.float32 or int8 or error <= _MOST_VECTOR_ERROR)
    return Verdict(bool(right), {"least_cosine": float(least_cosine), "largest_error": error})


def _scores(found: Floats, expected: Floats, dtype: torch.dtype, int8: bool) -> Verdict:
    assert not int8, "no peer reranks with int8 weights"
    theirs, ours = _log_odds(found), _log_odds(expected)
    spread = float(ours.std())
    if len(expected) > 1 and spread < _LEAST_SPREAD:
        raise RuntimeError(f"the expected log-odds vary by {spread:.2f} only: nothing to tell apart")
    apart = np.abs(found - expected)
    error = float(np.where(apart <= _GRAIN[dtype], 0.0, np.abs(theirs - ours)).max())
    return Verdict(
        error <= _MOST_LOG_ODDS_ERROR[dtype],
        {
            "largest_log_odds_error": error,
            "spread_of_log_odds": spread,
            "largest_probability_error": float(apart.max()),
        },
    )


def _log_odds(probabilities: Floats) -> Floats:
    wide = probabilities.astype(np.float64)
    with np.errstate(divide="ignore"):
        odds = np.log(wide) - np.log1p(-wide)
    return np.asarray(np.clip(odds, -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS), np.float32)
