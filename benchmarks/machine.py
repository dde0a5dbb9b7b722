"""What a result was measured on: without it a number says nothing."""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from qwen3_rag.backends.transformers.device import computes_bfloat16


def describe(*packages: str) -> dict[str, Any]:
    """Return processor, threads, instruction sets that matter, GPUs, and versions.

    Args:
        packages: distributions whose versions count; those that are not installed are left out.
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "multiplies_bfloat16": computes_bfloat16(torch.device("cpu")),
        "gpus": gpus,
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := _version(name)) is not None},
    }


def matmul_rate(dtype: torch.dtype, repeats: int = 9) -> float:
    """Return operations per second of 4,096 rows times an MLP weight of the 0.6B model, on the CPU."""
    rows, weight = torch.randn(4096, 1024).to(dtype), torch.randn(3072, 1024).to(dtype)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            seconds.append(time.perf_counter() - started)
    return 2.0 * 4096 * 1024 * 3072 / median(seconds[1:])


def _cpu_name() -> str:
    try:
        table = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in table if "model name" in line), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
