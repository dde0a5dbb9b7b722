"""How many tokens fit into one batch.

Keys and values are kept of a few instructions at most, so a batch's memory is its activations, and those are
proportional to its tokens with a factor that the config determines.
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
CPU_TOKEN_BUDGET: Final = 4096
"""A quarter of 16,384, which was 4 to 6 % faster (0.6B widths, 2 cores, bfloat16, medians of 3 rounds): for
that, a batch would need four times the memory and keep a waiting query four times as long."""
ACCELERATOR_TOKEN_BUDGET: Final = 65536
_BATCHES_TO_RECOVER: Final = 64
"""A failed attempt costs about one batch, so trying this rarely costs at most 2 %."""

_FRESH_SECONDS: Final = 1.0
"""How long a reading of the free memory is used: taking one took 0.3 ms, twice a round."""

_CGROUP: Final = Path("/sys/fs/cgroup")

_OUT_OF_MEMORY: Final = (
    "can't allocate memory",  # PyTorch's allocator on a CPU
    "could not create a primitive",  # oneDNN, which after that makes no kernel for new sizes in the same thread
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""In messages of a plain RuntimeError."""

CAPTURING: Final = threading.RLock()
"""Held while a CUDA graph is recorded: PyTorch records one at a time in a process, and its cache cannot be
emptied meanwhile."""

SHARE_OF_FREE_MEMORY: Final = 0.5
"""The rest is left to allocator fragmentation, kernels' workspaces and other programs."""


def activation_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Return the peak bytes of activations that one token of a batch needs in a Qwen3 layer.

    Alive at once: the residual stream, a norm's result and float32 copy and what is added to the stream, the
    attention's tensors (q, k, v, their rotated and gathered copies, the output and its float32 merge), and the
    MLP's two, whose memory is kept from layer to layer.
    """
    element = torch.finfo(dtype).bits // 8
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    query = config.num_attention_heads * head_dim
    key = config.num_key_value_heads * head_dim
    stream = config.hidden_size * (3 * element + 2 * 4)
    attention = (4 * query + 6 * key) * element + 2 * query * 4
    mlp = 2 * config.intermediate_size * element
    return int(stream + attention + mlp)


class TokenBudget:
    """Most tokens of the next batch: follows free memory, halves when it ran out, and recovers.

    Args:
        limit: returns what is allowed just now, running out of memory apart.
        clock: returns seconds; the limit is asked again when a second has passed.
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
        """A batch of this many tokens did not fit."""
        self._ceiling, self._batches_since, self._asked = max(1, tokens // 2), 0, None

    def succeeded(self) -> None:
        """A batch fitted. After some of them twice as much is tried: the memory may have come back."""
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
    """Return the most tokens of one batch that free memory allows, within bounds that pay."""
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
    """What the system says is available, or less where a container's limit (cgroup v2) is nearer."""
    try:
        table = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 4 << 30  # systems that do not tell; enough for CPU_TOKEN_BUDGET on every published model
    available = next(int(line.split()[1]) << 10 for line in table if line.startswith("MemAvailable"))
    try:
        limit, used = (int((_CGROUP / f"memory.{n}").read_text("ascii")) for n in ("max", "current"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text("ascii").splitlines())
        # Files that were read, a checkpoint's among them, count as used until the memory is wanted.
        used -= int(statistics["inactive_file"])
    except (OSError, ValueError, KeyError):  # no such group, or "max": no limit
        return available
    return min(available, limit - used)


def empty_cuda_cache() -> None:
    """Give back what PyTorch keeps of a GPU's memory for later."""
    with CAPTURING:
        torch.cuda.empty_cache()


def return_freed_memory() -> None:
    """Have the C library give back what was freed, where it keeps that: glibc does, for each thread.

    Otherwise freed weights that other threads loaded stay with the process.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that an allocation failed, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)
