"""Texts of realistic lengths, the same at every run."""

from __future__ import annotations

import random
from typing import Final

QUERY: Final = "How long does light from the sun take to reach the earth?"
_WORDS: Final = (
    *("the", "sun", "light", "takes", "eight", "minutes", "to", "reach", "earth", "while", "orbits", "planet"),
    *("moon", "star", "galaxy", "distance", "speed", "vacuum", "measured", "observe", "photon", "travel"),
    *("space", "time", "relativity", "theory", "general", "special", "mass"),
)
"""Each is one token, or one and the space before it."""


def mixed(count: int) -> list[str]:
    """Texts with a median of about 100 tokens, a tenth above 400, none above 2,000."""
    chance = random.Random(0)
    return [_text(chance, min(2000, max(5, round(chance.lognormvariate(4.6, 1.08))))) for _ in range(count)]


def uniform(count: int, tokens: int) -> list[str]:
    """Texts of one length."""
    chance = random.Random(1)
    return [_text(chance, tokens) for _ in range(count)]


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))
