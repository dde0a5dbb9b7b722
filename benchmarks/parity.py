"""Whether a way gives the right answer. A wrong answer has no speed.

Right is what the published snippet gives in float32. In bfloat16 every program rounds its own way, and with
as many layers as published the snippet itself is about as far off as may be. So its own distance is measured,
and others may be twice as far off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch

from benchmarks.ways import Floats

Kind = Literal["embedding", "reranking"]

_MOST_COSINE_ERROR: Final = {torch.bfloat16: 1e-3, torch.float16: 1e-3, torch.float32: 1e-6}
"""What the cosine of two vectors may be below 1."""
_MOST_COSINE_ERROR_INT8: Final = 1e-2
_MOST_VECTOR_ERROR: Final = 1e-4
"""In float32, of any number of a vector."""
_NOISE: Final = 2.0
"""How many times as far off as the published snippet in the same element type answers may be."""
_APART: Final = {"embedding": 4.0, "reranking": 2.0}
"""How many times as far from each other as from the truth two answers may be. Angles add up as log-odds do, and
one minus the cosine grows with the angle's square."""
_MOST_LOG_ODDS_ERROR: Final = {torch.bfloat16: 0.5, torch.float16: 0.5, torch.float32: 1e-2}
_GRAIN: Final = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 1e-6}
"""Probabilities this near count as equal: the published snippet rounds its own to the element type, in which
many are exactly 1."""
_LEAST_SPREAD: Final = 0.75
"""Standard deviation of the log-odds that are compared: answers that are all alike would prove nothing."""
_LARGEST_LOG_ODDS: Final = 12.0
"""Beyond it a probability in float32 does not tell."""


@dataclass(frozen=True)
class Truth:
    """Right answers.

    Attributes:
        values: the published snippet's in float32.
        noise: how far off it is itself in the element type that is compared: one minus the least cosine, or the
            largest error of log-odds.
    """

    values: Floats
    noise: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """How far an answer is from the right one.

    Attributes:
        right: whether that is near enough.
        measured: the distance, for the results.
    """

    right: bool
    measured: dict[str, Any]


def noise(kind: Kind, found: Floats, expected: Floats, dtype: torch.dtype) -> float:
    """Return how far answers in an element type are from those in float32; see `Truth`."""
    measured = check(kind, found, Truth(expected), dtype).measured
    return float(measured["cosine_error"] if kind == "embedding" else measured["largest_log_odds_error"])


def check(
    kind: Kind,
    found: Floats,
    expected: Truth,
    dtype: torch.dtype,
    *,
    int8: bool = False,
    are_apart: bool = False,
) -> Verdict:
    """Compare vectors by their cosines, scores by their log-odds.

    Args:
        int8: the weights of what was found have 8 bits.
        are_apart: what is expected are answers in the same element type, and not the truth itself.

    Raises:
        RuntimeError: the expected answers are too much alike to compare anything with.
    """
    right = expected.values
    if found.shape != right.shape:
        return Verdict(False, {"shape": list(found.shape), "expected_shape": list(right.shape)})
    if not np.isfinite(found).all():
        return Verdict(False, {"not_finite": int((~np.isfinite(found)).sum())})
    compare = _vectors if kind == "embedding" else _scores
    factor = _APART[kind] if are_apart else 1.0
    return compare(found, right, dtype, int8, _NOISE * expected.noise, factor)


def cosines(found: Floats, expected: Floats) -> Floats:
    """Of each row with the other's; vectors normalised in bfloat16 have norms that are off by a thousandth."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((found * expected).sum(axis=1) / norms, np.float32)


def _vectors(
    found: Floats, expected: Floats, dtype: torch.dtype, int8: bool, noise: float, factor: float
) -> Verdict:
    alike = expected @ expected.T / np.linalg.norm(expected, axis=1) ** 2
    others = alike[~np.eye(len(expected), dtype=bool)]
    most = factor * max(noise, _MOST_COSINE_ERROR_INT8 if int8 else _MOST_COSINE_ERROR[dtype])
    if len(others) and others.min() > 1 - most:
        raise RuntimeError(f"the texts' own vectors have cosines above {others.min()}: nothing to tell apart")
    off = float(1 - cosines(found, expected).min())
    error = float(np.abs(found - expected).max())
    right = off <= most and (dtype != torch.float32 or int8 or error <= _MOST_VECTOR_ERROR)
    return Verdict(right, {"cosine_error": off, "most_allowed": most, "largest_error": error})


def _scores(
    found: Floats, expected: Floats, dtype: torch.dtype, int8: bool, noise: float, factor: float
) -> Verdict:
    assert not int8, "no peer reranks with int8 weights"
    theirs, ours = _log_odds(found), _log_odds(expected)
    spread = float(ours.std())
    if len(expected) > 1 and spread < _LEAST_SPREAD:
        raise RuntimeError(f"the expected log-odds vary by {spread:.2f} only: nothing to tell apart")
    apart = np.abs(found - expected)
    error = float(np.where(apart <= _GRAIN[dtype], 0.0, np.abs(theirs - ours)).max())
    most = factor * max(noise, _MOST_LOG_ODDS_ERROR[dtype])
    return Verdict(
        error <= most,
        {
            "largest_log_odds_error": error,
            "most_allowed": most,
            "spread_of_log_odds": spread,
            "largest_probability_error": float(apart.max()),
        },
    )


def _log_odds(probabilities: Floats) -> Floats:
    wide = probabilities.astype(np.float64)
    with np.errstate(divide="ignore"):
        odds = np.log(wide) - np.log1p(-wide)
    return np.asarray(np.clip(odds, -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS), np.float32)
