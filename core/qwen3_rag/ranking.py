"""From log-odds to scores and rankings. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.inputs import as_int


@dataclass(frozen=True)
class Ranked:
    """One document of a ranking.

    Attributes:
        index: place of the document in the list that was given.
        score: P(yes), 0 to 1.
        text: the document.
    """

    index: int
    score: float
    text: str


def yes_probability(log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return P(yes) = sigmoid(logit_yes - logit_no): the softmax over both logits, taken at yes."""
    # exp of a non-positive number never overflows.
    small = np.exp(-np.abs(log_odds.astype(np.float64)))
    return np.where(log_odds >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def check_top_k(top_k: int | None) -> int | None:
    """Return how many documents are wanted, as an int; None for all.

    Raises:
        TypeError: it is no whole number.
        ConfigurationError: it is negative.
    """
    if top_k is None:
        return None
    count = as_int("top_k", top_k, "a whole number, 0 or more, or None for all")
    if count < 0:
        raise ConfigurationError(f"top_k must be 0 or more, or None for all, got {count}")
    return count


def best_first(scores: NDArray[np.float32], top_k: int | None) -> list[int]:
    """Return the indices of the `top_k` best scores, equal ones in input order; None for all."""
    order: list[int] = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return order


def rank(scores: NDArray[np.float32], documents: Sequence[str], top_k: int | None) -> list[Ranked]:
    """Return documents in the order of `best_first`, at most `top_k` of them."""
    return [Ranked(i, float(scores[i]), documents[i]) for i in best_first(scores, top_k)]
