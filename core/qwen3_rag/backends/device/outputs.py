"""Outputs of batches, in the order of their prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def join_outputs(outputs: Sequence[Tensor], indices: Sequence[int]) -> NDArray[np.float32]:
    """Join outputs of batches and restore the order of the prompts.

    Args:
        outputs: float32, one tensor per batch; shape (prompts, hidden_size) for vectors, (prompts,) for scores.
        indices: the prompt of each row, over all batches; each of 0 to n - 1 once.

    Returns:
        Shape (n, ...), on the host; shape (0,) when there was no batch.
    """
    if not outputs:
        return np.zeros(0, dtype=np.float32)
    values: NDArray[np.float32] = torch.cat(list(outputs)).cpu().numpy()
    restored = np.empty_like(values)
    restored[list(indices)] = values
    return restored
