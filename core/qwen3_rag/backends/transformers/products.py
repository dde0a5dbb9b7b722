"""Products of rows with a layer's weights: by plain ones, by packed ones, or by a module's own call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qwen3_rag.backends.transformers.linear import PackedLinear, is_plain


class PlainProduct:
    """By a weight as it lies in a linear layer.

    Args:
        weight: shape (out_features, in_features).
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.t()

    def __call__(self, rows: Tensor, room: Tensor) -> Tensor:
        """Return the product of rows (rows, in_features), which may lie in the room (rows, out_features)."""
        return torch.mm(rows, self._weight, out=room)

    def add_to(self, states: Tensor, rows: Tensor) -> None:
        """Add the product to states, in place."""
        states.addmm_(rows, self._weight)


class PackedProduct:
    """By a packed weight.

    Args:
        linear: has the weight.
    """

    def __init__(self, linear: PackedLinear) -> None:
        self._linear = linear

    def __call__(self, rows: Tensor, _: Tensor) -> Tensor:
        """See `PlainProduct`; there is no product into a room."""
        product: Tensor = self._linear(rows)
        return product

    def add_to(self, states: Tensor, rows: Tensor) -> None:
        """See `PlainProduct`; for rows behind those of the states nothing is added."""
        self._linear.add_to(states, rows)

    def gate(self, up: PackedProduct, rows: Tensor) -> Tensor:
        """Return SiLU of this product times another one of the same rows, a recurring number of them."""
        return up._linear.times(rows, self._linear.silu(rows))


class ModuleProduct:
    """By a module's own call: it is quantised, or does more than multiply.

    Args:
        module: from rows to their product.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, rows: Tensor, room: Tensor) -> Tensor:
        """See `PlainProduct`."""
        return self._product(rows, room.dtype)

    def add_to(self, states: Tensor, rows: Tensor) -> None:
        """See `PlainProduct`."""
        states.add_(self._product(rows, states.dtype))

    def _product(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        # Quantised layers may add a batch axis or return another dtype.
        product: Tensor = self._module(rows).view(rows.shape[0], -1).to(dtype)
        return product


Product = PlainProduct | PackedProduct | ModuleProduct


def product_of(linear: Any, device: torch.device) -> Product:
    """Return how a linear layer multiplies.

    Args:
        linear: the layer, which does not change any more.
        device: of the rows.
    """
    if is_plain(linear) and linear.weight.device == device:
        return PlainProduct(linear.weight.detach())
    return PackedProduct(linear) if isinstance(linear, PackedLinear) else ModuleProduct(linear)
