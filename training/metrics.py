"""Ranking measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(scores: NDArray[np.float32], answers: ArrayLike) -> NDArray[np.int64]:
    """Return each answer's place, from 0, in its row of scores (queries, passages); ties count against it."""
    own = np.take_along_axis(scores, np.asarray(answers)[:, None], axis=1)
    return np.asarray((scores >= own).sum(axis=1) - 1)


def ndcg_at_10(places: ArrayLike) -> float:
    """Return nDCG@10 of queries with one answer each, from its place (0 is first)."""
    places = np.asarray(places)
    return float(np.where(places < 10, 1 / np.log2(places + 2.0), 0.0).mean())


def area_under_curve(positive: ArrayLike, negative: ArrayLike) -> float:
    """Return the chance that a positive's score exceeds a negative's; ties count half."""
    positive, negative = np.asarray(positive), np.sort(np.asarray(negative))
    below = np.searchsorted(negative, positive, side="left")
    equal = np.searchsorted(negative, positive, side="right") - below
    return float((below + equal / 2).mean() / len(negative))
