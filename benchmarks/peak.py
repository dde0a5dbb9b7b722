"""Peak memory of a call above what was there before it, in this process."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

_POPULATE_READ: Final = 22
"""MADV_POPULATE_READ of Linux 5.14."""
_RESET_PEAK: Final = "5"
"""See proc(5), /proc/pid/clear_refs."""


def peak_above(call: Callable[[], Any], device: torch.device) -> tuple[Any, int]:
    """Call, and return its result and the most bytes that it needed beyond those in use before.

    On a CPU, resident memory: what a call gets and gives back is seen by the kernel's own high-water
    mark, which is set back first. Weights that Transformers only maps from their file are read in
    beforehand, else the call would be charged for them.

    Raises:
        RuntimeError: the system is not Linux, or too old to say.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        return result, torch.cuda.max_memory_allocated(device) - before
    libc = ctypes.CDLL(None, use_errno=True)
    _read_mapped_weights(libc)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    before = _status("VmRSS")
    result = call()
    return result, _status("VmHWM") - before


def _read_mapped_weights(libc: Any) -> None:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(".safetensors"):
            start, stop = (int(address, 16) for address in line.split(" ", 1)[0].split("-"))
            failed = libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _POPULATE_READ)
            if failed:
                raise RuntimeError("cannot read mapped weights in: madvise says no (Linux older than 5.14?)")


def _status(field: str) -> int:
    table = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in table if line.startswith(field + ":"))
