"""From arrays to a framework's own values, without holding up an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.pool import in_pool

T = TypeVar("T")

_INLINE_NUMBERS: Final = 200_000
"""So many numbers are converted on the event loop itself (measured: 7 ms), more in a thread."""


def as_lists(vectors: NDArray[np.float32]) -> list[list[float]]:
    """Return the rows of a matrix as lists of floats.

    Row by row: `tolist` of a whole matrix never lets another thread run.
    """
    return [row.tolist() for row in vectors]


async def convert_off_loop(convert: Callable[[], T], numbers: int) -> T:
    """Return `convert()`, from a thread if it is about many numbers.

    Args:
        convert: makes a framework's values of a call's results; in many steps, since a single long one in C
            would keep the loop from running all the same.
        numbers: how many it converts.
    """
    return convert() if numbers <= _INLINE_NUMBERS else await asyncio.wrap_future(in_pool(convert))
