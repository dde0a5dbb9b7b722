"""How many tokens fit into one batch, and giving memory back that is no longer used.

A batch's memory is its activations (the prefix cache is small), which are proportional to its tokens by a
factor that the config determines.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

MIN_TOKEN_BUDGET: Final = 512
"""Even where free memory seems to allow less: a batch that does not fit is halved. Chosen, not tuned."""

CPU_TOKEN_BUDGET: Final = 4096
"""16,384 was 4 to 6 % faster (0.6B widths, 2 cores, bfloat16, medians of 3 rounds), but a batch would need four
times the memory and keep a waiting query four times as long."""

ACCELERATOR_TOKEN_BUDGET: Final = 65536
"""Chosen, not tuned."""

_BATCHES_TO_RECOVER: Final = 64
"""Batches that must fit before the budget doubles. A failed attempt costs about one batch, so at most 2 %."""

_FRESH_SECONDS: Final = 1.0
"""How long a reading of the free memory is used: one takes 0.3 ms and is needed twice a round."""

_CGROUP: Final = Path("/sys/fs/cgroup")

_UNTOLD_BYTES: Final = 4 << 30
"""Free memory where the system does not tell: enough for CPU_TOKEN_BUDGET on every published model."""

CAPTURING: Final = threading.RLock()
"""Held while a CUDA graph is captured: PyTorch captures one at a time per process, and its cache cannot be
emptied meanwhile."""

SHARE_OF_FREE_MEMORY: Final = 0.5
"""The rest is left to allocator fragmentation, kernels' workspaces and other programs. Chosen, not tuned."""


def activation_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Return the peak bytes of activations that one token of a batch needs in a Qwen3 layer.

    Alive at once: the residual stream, a norm's result and its float32 copy, the update of the stream, the
    attention's tensors (q, k, v, their rotated and gathered copies, the output and its float32 merge), and the
    MLP's two, whose memory is reused by all layers.
    """
    element = torch.finfo(dtype).bits // 8
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    stream = config.hidden_size * (3 * element + 2 * 4)
    attention = (4 * query + 6 * key) * element + 2 * query * 4
    mlp = 2 * config.intermediate_size * element
    return int(stream + attention + mlp)


class TokenBudget:
    """Most tokens of the next batch: follows free memory, halves when it ran out, and recovers.

    Args:
        limit: returns the most tokens that free memory allows now.
        clock: returns seconds; `limit` is called again after `_FRESH_SECONDS`.
    """

    def __init__(self, limit: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = limit
        self._clock = clock
        self._asked: tuple[float, int] | None = None
        self._ceiling: int | None = None
        self._batches_since = 0

    def now(self) -> int:
        """Return the most tokens that the next batch may have, 1 or more."""
        limit = self._limit()
        return limit if self._ceiling is None else min(limit, self._ceiling)

    def ran_out(self, tokens: int) -> None:
        """Note that a batch of this many tokens did not fit."""
        self._ceiling, self._batches_since, self._asked = max(1, tokens // 2), 0, None

    def succeeded(self) -> None:
        """Note that a batch fitted. After some of them the budget doubles: memory may be free again."""
        if self._ceiling is None:
            return
        self._batches_since += 1
        if self._batches_since >= _BATCHES_TO_RECOVER:
            doubled, self._batches_since = 2 * self._ceiling, 0
            self._ceiling = doubled if doubled < self._limit() else None

    def _limit(self) -> int:
        now = self._clock()
        if self._asked is None or now - self._asked[0] >= _FRESH_SECONDS:
            self._asked = now, self._ask()
        return self._asked[1]


def choose_token_budget(config: Any, dtype: torch.dtype, device: torch.device) -> int:
    """Return the most tokens of one batch that free memory allows, between the bounds of this module."""
    most = CPU_TOKEN_BUDGET if device.type == "cpu" else ACCELERATOR_TOKEN_BUDGET
    fits = int(free_bytes(device) * SHARE_OF_FREE_MEMORY) // activation_bytes_per_token(config, dtype)
    return max(MIN_TOKEN_BUDGET, min(most, fits))


def free_bytes(device: torch.device) -> int:
    """Return the memory that new tensors on the device may take, in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return _free_host_bytes()


def _free_host_bytes() -> int:
    """Available memory of the system, or of the container (cgroup v2) if that is less."""
    try:
        table = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not on Linux
        return _UNTOLD_BYTES
    told = (int(line.split()[1]) << 10 for line in table if line.startswith("MemAvailable"))
    available = next(told, _UNTOLD_BYTES)
    try:
        limit, used = (int((_CGROUP / f"memory.{n}").read_text("ascii")) for n in ("max", "current"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text("ascii").splitlines())
        # Cached files, a checkpoint's among them, count as used until the memory is needed.
        used -= int(statistics["inactive_file"])
    except (OSError, ValueError, KeyError):  # no such group, or "max": no limit
        return available
    return min(available, limit - used)


def empty_cuda_cache() -> None:
    """Return the memory of a GPU that PyTorch's allocator caches."""
    with CAPTURING:
        torch.cuda.empty_cache()


def return_freed_memory() -> None:
    """Have glibc return freed memory to the system.

    It keeps freed memory per thread: weights that another thread loaded would otherwise stay with the process.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in other C libraries
        if trim is not None:
            trim(0)
