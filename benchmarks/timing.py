"""Times of ways to do one job, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.ways import Outcome

Call = Callable[[], Outcome]


def in_turn(
    calls: Mapping[str, Call], rounds: Mapping[str, int], seconds_per_way: float
) -> tuple[dict[str, list[float]], dict[str, Outcome]]:
    """Run all ways once in each round, so that a machine's slow moments hit all of them.

    Args:
        rounds: most of them, for each way.
        seconds_per_way: a way is left out of further rounds when another run would bring its runs
            together above this.

    Returns:
        Seconds of each way, as many as it had rounds, from the first round on; and the outcomes of the
        first round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    first: dict[str, Outcome] = {}
    for number in range(max(rounds.values())):
        for name, call in calls.items():
            spent = seconds[name]
            is_slow = spent and sum(spent) + spent[-1] > seconds_per_way
            if is_slow or number >= rounds[name]:
                continue
            outcome = call()
            spent.append(outcome.seconds)
            first.setdefault(name, outcome)
    return seconds, first


def medians(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Run each way once to warm up, then all in turn; return median seconds of each."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            found[name].append(time.perf_counter() - started)
    return {name: median(own) for name, own in found.items()}


def summary(own: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and rounds of a way, and the median of its ratio to `base` in the same round."""
    return {
        "seconds": median(own),
        "extremes": [min(own), max(own)],
        "rounds": len(own),
        "times_ours": median(a / b for a, b in zip(own, base, strict=False)),
    }
