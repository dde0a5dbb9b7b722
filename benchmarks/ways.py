"""Ways to do one job: what is timed, and what it gives."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

OURS: Final = "qwen3-rag"
"""Name of the way that the others are compared with."""


@dataclass(frozen=True)
class Outcome:
    """What one run gave.

    Attributes:
        values: float32; vectors of norm 1, shape (n, dimensions), or P(yes), shape (n,).
        seconds: from texts to values on the host, so that a GPU has finished.
    """

    values: Floats
    seconds: float


Run = Callable[[Sequence[Any]], Outcome]
"""From texts, or from (query, passage) pairs, to an outcome."""


@dataclass(frozen=True)
class Peer:
    """One program that does the job.

    Attributes:
        name: as results call it.
        settings: its runs by setting, in the order in which the sweep tries them.
        default: the setting that a user gets without choosing; None where one must be chosen.
        queries: from query texts to vectors, by setting; empty for rerankers.
        wraps: the peer whose code it calls: its best setting is taken from there, and it has few rounds.
        int8: weights have 8 bits, so answers are allowed to be further off.
        facts: what a reader must know of it, for the results.
    """

    name: str
    settings: Mapping[str, Run]
    default: str | None = None
    queries: Mapping[str, Run] = field(default_factory=dict)
    wraps: str | None = None
    int8: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The setting that parity is checked with."""
        return next(iter(self.settings)) if self.default is None else self.default


def clocked(function: Callable[[Sequence[Any]], Any]) -> Run:
    """Time a function that returns numbers on the host; making an array of them is not counted."""

    def run(items: Sequence[Any]) -> Outcome:
        started = time.perf_counter()
        values = function(items)
        seconds = time.perf_counter() - started
        return Outcome(np.asarray(values, np.float32), seconds)

    return run


def failure(error: Exception) -> str:
    """Print where an exception came from, and return what results say of it."""
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def batch_name(size: int) -> str:
    """The name of a batch size among a peer's settings."""
    return f"batches of {size}"


def by_batch_size(make: Callable[[int], Run], swept: Sequence[int], default: int | None) -> dict[str, Run]:
    """Return a run for each batch size, those of the sweep first."""
    sizes = [*swept, *([default] if default is not None and default not in swept else [])]
    return {batch_name(size): make(size) for size in sizes}
