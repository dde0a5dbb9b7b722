"""Rows times a layer's weight: by PyTorch, by a weight packed for oneDNN, or by a module's own call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qwen3_rag.backends.transformers.packed_linear import PackedLinear, is_plain


class PlainMatmul:
    """By the weight of a linear layer as it is.

    Args:
        weight: shape (out_features, in_features).
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.t()

    def __call__(self, rows: Tensor, out: Tensor) -> Tensor:
        """Return the product.

        Args:
            rows: shape (rows, in_features).
            out: shape (rows, out_features); may be used for the result.

        Returns:
            Shape (rows, out_features); `out` or a new tensor.
        """
        return torch.mm(rows, self._weight, out=out)

    def add_to(self, states: Tensor, rows: Tensor) -> None:
        """Add the product of rows, shape (rows, in_features), to states, (rows, out_features), in place."""
        states.addmm_(rows, self._weight)


class PackedMatmul:
    """By a packed weight.

    Args:
        linear: has the weight.
    """

    def __init__(self, linear: PackedLinear) -> None:
        self._linear = linear

    def __call__(self, rows: Tensor, _: Tensor) -> Tensor:
        """See `PlainMatmul`; always a new tensor, since oneDNN's operation takes no output."""
        product: Tensor = self._linear(rows)
        return product

    def add_to(self, states: Tensor, rows: Tensor) -> None:
        """See `PlainMatmul`; rows may be padded to more than the states have."""
        self._linear.add_to(states, rows)

    def gate(self, up: PackedMatmul, rows: Tensor) -> Tensor:
        """Return SiLU of this product times `up`'s, for rows whose count is a `padded_row_count`."""
        return up._linear.times(rows, self._linear.silu(rows))


class ModuleMatmul:
    """By a module's own call, because it is quantised or does more than a linear layer.

    Args:
        module: from rows to their product.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, rows: Tensor, out: Tensor) -> Tensor:
        """See `PlainMatmul`."""
        return self._product(rows, out.dtype)

    def add_to(self, states: Tensor, rows: Tensor) -> None:
        """See `PlainMatmul`."""
        states.add_(self._product(rows, states.dtype))

    def _product(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        # Quantised layers may add a batch axis or return another dtype.
        product: Tensor = self._module(rows).view(rows.shape[0], -1).to(dtype)
        return product


Matmul = PlainMatmul | PackedMatmul | ModuleMatmul


def matmul_of(linear: Any, device: torch.device) -> Matmul:
    """Return how a linear layer multiplies.

    Args:
        linear: the layer, which must not change afterwards.
        device: of the rows.
    """
    if is_plain(linear) and linear.weight.device == device:
        return PlainMatmul(linear.weight.detach())
    return PackedMatmul(linear) if isinstance(linear, PackedLinear) else ModuleMatmul(linear)
