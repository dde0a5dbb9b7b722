"""Times of ways to do one job, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

Ways = Mapping[str, Callable[[], Any]]


def times(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Run each way once to warm up, then in turn, so that a machine's slow moments hit all of them.

    Returns:
        Seconds of each way in each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def medians(ways: Ways, rounds: int) -> dict[str, float]:
    """Return median seconds of each way."""
    return {name: median(found) for name, found in times(ways, rounds).items()}


def compared(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return for each way median, extremes, and the median of its ratio to the first way of the same round."""
    base = next(iter(seconds.values()))
    return {
        name: {
            "seconds": median(own),
            "extremes": [min(own), max(own)],
            "times_the_first": median(a / b for a, b in zip(own, base, strict=True)),
        }
        for name, own in seconds.items()
    }
