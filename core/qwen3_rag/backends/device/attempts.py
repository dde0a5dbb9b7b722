"""Batches on a device whose memory may run out: trying them, and putting their outputs in order."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3_rag.backends.device import turns
from qwen3_rag.backends.device.memory import empty_cuda_cache, is_out_of_memory, return_freed_memory
from qwen3_rag.errors import OutOfMemoryError
from qwen3_rag.tokens import Prompt


def attempt(forward: Callable[[], Tensor], device: torch.device) -> Tensor | None:
    """Return what a forward pass gives, or None when memory ran out.

    Raises:
        Whatever else `forward` raises.
    """
    try:
        return forward()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Outside the except block: the traceback kept the failed batch's tensors alive.
    turns.renew(device.type)
    if device.type == "cuda":
        empty_cuda_cache()
    return None


def does_not_fit(prompt: Prompt, device: torch.device) -> OutOfMemoryError:
    """Return the error of a prompt that memory cannot hold even when nothing else is in the batch."""
    return OutOfMemoryError(
        f"text {prompt.index} ({len(prompt.token_ids)} tokens) alone does not fit into the memory of {device}; "
        "lower max_tokens, or use a smaller model, a shorter dtype or a larger device"
    )


def in_order(outputs: Sequence[Tensor], order: Sequence[int]) -> NDArray[np.float32]:
    """Join outputs of batches and put each row where it belongs.

    Args:
        outputs: float32, one tensor per batch, a row or number per prompt.
        order: place of each row, over all batches; each of 0 to n - 1 once.

    Returns:
        Shape (n, ...), on the host; empty when there was no batch.
    """
    if not outputs:
        return np.zeros(0, dtype=np.float32)
    values: NDArray[np.float32] = torch.cat(list(outputs)).cpu().numpy()
    restored = np.empty_like(values)
    restored[list(order)] = values
    return restored


def release_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more, the allocator's cache included."""
    gc.collect()
    if device.type == "cuda":
        empty_cuda_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif device.type == "cpu":
        return_freed_memory()
