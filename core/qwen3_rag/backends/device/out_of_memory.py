"""Forward passes on a device whose memory may run out, and giving memory back."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from qwen3_rag.backends.device import exclusive
from qwen3_rag.backends.device.memory import empty_cuda_cache, return_freed_memory
from qwen3_rag.errors import OutOfMemoryError
from qwen3_rag.tokens import Prompt

_OUT_OF_MEMORY: Final = (
    "can't allocate memory",  # PyTorch's allocator on a CPU
    "could not create a primitive",  # oneDNN; afterwards it creates none for new shapes in the same thread
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""Parts of messages of a plain RuntimeError."""


def attempt(forward: Callable[[], Tensor], device: torch.device) -> Tensor | None:
    """Return the result of a forward pass, or None if memory ran out.

    Raises:
        Whatever else `forward` raises.
    """
    try:
        return forward()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Outside the except block, where the traceback would keep the failed batch's tensors alive.
    exclusive.replace_thread(device.type)
    if device.type == "cuda":
        empty_cuda_cache()
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that an allocation failed, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def too_large_error(prompt: Prompt, device: torch.device) -> OutOfMemoryError:
    """Return the error for a prompt that does not fit into memory even as the only one of its batch."""
    return OutOfMemoryError(
        f"text {prompt.index} ({len(prompt.token_ids)} tokens) alone does not fit into the memory of {device}; "
        "lower max_tokens, or use a smaller model, a shorter dtype or a larger device"
    )


def release_memory(device: torch.device) -> None:
    """Collect garbage and return the allocator's cached memory to the system."""
    gc.collect()
    if device.type == "cuda":
        empty_cuda_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif device.type == "cpu":
        return_freed_memory()
