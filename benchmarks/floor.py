"""What this machine can do: the rate of matrix products and of memory, in the run whose times it judges."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

import torch
from qwen3_rag.models import PublishedModel

_REPEATS: Final = 9
_CALLS_ON_A_GPU: Final = 50
"""Between two readings of the clock: starting one kernel and waiting for it can take as long as the kernel."""
_ROWS: Final = 4096
_ROWS_ON_A_GPU: Final = 16384
"""As many as our layers multiply at once."""
_ARRAY_BYTES: Final = 256 << 20
"""Several times the last cache of any processor in use."""


@dataclass(frozen=True)
class Floor:
    """Measured limits, medians of nine.

    Attributes:
        matmul: operations per second of 4,096 rows, on a GPU 16,384, times an MLP weight of the model.
        matmul_512_rows: the same with 512 rows.
        copy: bytes per second read and written together by a copy of 256 MiB.
        triad: bytes per second of a = b + s * c, three arrays of 256 MiB of float32.
    """

    matmul: float
    matmul_512_rows: float
    copy: float
    triad: float

    def as_json(self) -> dict[str, float]:
        """In billions per second."""
        return {name: round(rate / 1e9, 2) for name, rate in asdict(self).items()}


def measure_floor(model: PublishedModel, dtype: torch.dtype, device: torch.device) -> Floor:
    """Measure all of it; about two seconds on two cores."""
    width, height = model.dimensions, model.intermediate
    weight = torch.randn(height, width, device=device).to(dtype)
    count = _ROWS if device.type == "cpu" else _ROWS_ON_A_GPU
    rows = torch.randn(count, width, device=device).to(dtype)
    a, b, c = (torch.ones(_ARRAY_BYTES // 4, device=device) for _ in range(3))
    multiply = torch.nn.functional.linear
    with torch.inference_mode():
        many = _seconds(lambda: multiply(rows, weight), device)
        few = _seconds(lambda: multiply(rows[:512], weight), device)
        copy = _seconds(lambda: a.copy_(b), device)
        triad = _seconds(lambda: torch.add(b, c, alpha=3.0, out=a), device)
    operations = 2.0 * width * height
    return Floor(count * operations / many, 512 * operations / few, 2 * a.nbytes / copy, 3 * a.nbytes / triad)


def mean(before: Floor, after: Floor) -> Floor:
    """What the time between two measurements is judged by."""
    pairs = zip(asdict(before).items(), asdict(after).values(), strict=True)
    return Floor(**{name: (a + b) / 2 for (name, a), b in pairs})


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    calls = 1 if device.type == "cpu" else _CALLS_ON_A_GPU
    found = []
    for _ in range(_REPEATS + 1):
        _wait_for(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        _wait_for(device)
        found.append((time.perf_counter() - started) / calls)
    return median(found[1:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
