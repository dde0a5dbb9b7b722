"""Texts of realistic lengths, the same at every run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Final

import numpy as np

QUERY: Final = "How long does light from the sun take to reach the earth?"
_MEDIAN_LOG: Final = 4.6
_SPREAD_LOG: Final = 1.08
"""Log-normal lengths: a median of 99 tokens, nine tenths below 400."""
LONGEST: Final = 2000
_WORDS: Final = (
    *("the", "sun", "light", "takes", "eight", "minutes", "to", "reach", "earth", "while", "orbit", "planet"),
    *("moon", "star", "energy", "distance", "speed", "force", "wave", "observe", "field", "travel"),
    *("space", "time", "gravity", "theory", "general", "special", "mass"),
)
"""Each is one token, with the space before it or without."""


def mixed(count: int) -> list[str]:
    """Texts whose lengths are the quantiles (i + 1/2) / count of the distribution, in random order.

    Quantiles rather than draws, so that few texts have the spread of many and a tail, to 2,000
    tokens from 400 texts on.
    """
    chance = random.Random(0)
    normal = NormalDist(_MEDIAN_LOG, _SPREAD_LOG)
    lengths = [round(np.exp(normal.inv_cdf((i + 0.5) / count))) for i in range(count)]
    chance.shuffle(lengths)
    return [_text(chance, min(LONGEST, max(5, length)) - 1) for length in lengths]


def uniform(count: int, tokens: int) -> list[str]:
    """Different texts of one length, `<|endoftext|>` included."""
    chance = random.Random(1)
    return [_text(chance, tokens - 1) for _ in range(count)]


def queries(count: int) -> list[str]:
    """Different queries of 6 to 20 tokens."""
    chance = random.Random(2)
    return [f"{_text(chance, chance.randint(4, 18))} {number}?" for number in range(count)]


def pairs(queries_count: int, passages: int, tokens: tuple[int, int] = (40, 80)) -> list[tuple[str, str]]:
    """Each query with passages of its own, of so many tokens, those of a query together."""
    chance = random.Random(3)
    asked = [QUERY, *queries(queries_count - 1)]
    return [(query, _text(chance, chance.randint(*tokens))) for query in asked for _ in range(passages)]


def lengths_summary(lengths: Sequence[int]) -> dict[str, Any]:
    """Number, median, 90th percentile, longest and sum of token counts."""
    return {
        "texts": len(lengths),
        "median": float(np.median(lengths)),
        "p90": float(np.quantile(lengths, 0.9)),
        "longest": max(lengths),
        "sum": sum(lengths),
    }


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))
