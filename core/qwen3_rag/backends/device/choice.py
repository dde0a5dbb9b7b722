"""Which device and which element type to run on."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Final

import torch

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.settings import DType

_CPU_BFLOAT16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names in /proc/cpuinfo of instruction sets that multiply bfloat16; the last is Arm's."""


def choose_device(device: str | None) -> torch.device:
    """Return the named device, or without a name the best of this machine: CUDA, then MPS, then CPU.

    Raises:
        ConfigurationError: the name is not a device, or this machine does not have it.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f'device must be "cuda", "cuda:N", "mps" or "cpu", got {device!r}') from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (chosen.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(chosen.type, False):
        have = ", ".join(name for name, there in available.items() if there)
        raise ConfigurationError(f"device {device!r} is not available here; this machine has: {have}")
    return chosen


def choose_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """Return the element type: for "auto" bfloat16 where the hardware multiplies it, else float32.

    "auto" never means float16: the 8B models overflow it to NaN (QwenLM/Qwen3-Embedding#164).
    """
    if dtype != "auto":
        named: torch.dtype = getattr(torch, dtype)
        return named
    return torch.bfloat16 if computes_bfloat16(device) else torch.float32


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 multiplication: CUDA from compute capability 8.0, CPUs with
    AVX512-BF16, AMX or Arm's BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not _CPU_BFLOAT16_FLAGS.isdisjoint(_cpu_flags())


@cache
def _cpu_flags() -> frozenset[str]:
    """Names of the CPU's instruction sets; empty on other systems than Linux."""
    if platform.system() == "Linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("flags", "features")):
                return frozenset(line.split())
    return frozenset()
