"""Linear layers on a CPU whose weights are packed: they lie as oneDNN multiplies them."""

from __future__ import annotations

import platform
import warnings
from functools import cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3_rag.backends.device.memory import return_freed_memory

_PACKED_FOR_ROWS: Final = 64
"""Rows of a call that oneDNN chooses the weight's arrangement for: a query or a few. On an AMD EPYC the
arrangement for 512 rows was no faster with 512."""

_FILLED_ROWS: Final = 128
"""Most rows of a batch that is filled. On an AMD EPYC 28 products of 15 rows took 8.0 ms where each padded its
own, and of 16 rows 7.3. Large batches gain nothing by it: their blocks are padded anyway, by fewer rows."""

_LAYER_LINEARS: Final = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


class PackedLinear(nn.Module):
    """A linear layer without bias on a CPU whose weight lies as oneDNN multiplies it.

    PyTorch's own products arrange a weight anew in each call, which on an AMD EPYC was a fifth of the time of
    40 rows in bfloat16; and in float32 they are MKL's, which took 1.4 to 1.7 times as long.

    oneDNN makes a kernel for each number of rows, of about half a megabyte and more, and keeps it: with ever
    new numbers those were gigabytes. So rows are padded to a number that recurs.

    Args:
        linear: has the weight; a copy of it is kept.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the product, shape (rows, out_features)."""
        count = rows.shape[0]
        return self._pointwise(_filled(rows, recurring_count(count)), "none")[:count]

    def add_to(self, states: Tensor, rows: Tensor) -> None:
        """Add the product to states, in place, rounded once; for rows behind theirs nothing is added."""
        count = states.shape[0]
        filled = recurring_count(count)
        states.copy_(self._with(_filled(rows, filled), _filled(states, filled), "add")[:count])

    def silu(self, rows: Tensor) -> Tensor:
        """Return SiLU of the product, rounded once; of a recurring number of rows."""
        return self._pointwise(rows, "swish")

    def times(self, rows: Tensor, factors: Tensor) -> Tensor:
        """Return the product times factors of its shape, rounded once; of a recurring number of rows."""
        return self._with(rows, factors, "mul")

    def _pointwise(self, rows: Tensor, operation: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, None, operation, [], "")
        return product

    def _with(self, rows: Tensor, other: Tensor, operation: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._packed, None, operation)
        return product


def _filled(rows: Tensor, count: int) -> Tensor:
    """Return as many rows, those behind the given ones of zeros."""
    missing = count - rows.shape[0]
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def recurring_count(rows: int) -> int:
    """Return the next of few numbers: multiples of 4 up to 64, of 8 up to 128, then 8 numbers a doubling."""
    step = max(4 if rows <= 64 else 8, 1 << max(0, (rows - 1).bit_length() - 4))
    return -(-rows // step) * step


def filled_count(rows: int) -> int:
    """Return the rows that a batch is given at first, so that no product of a small one pads them anew."""
    return recurring_count(rows) if rows <= _FILLED_ROWS else rows


def pack_linears(decoder: Any) -> None:
    """Replace linear layers of a decoder by packed ones, those on a CPU that do nothing but multiply.

    Nothing is replaced where PyTorch has no such products: they are not part of its public interface, though
    what `torch.compile` makes of a linear layer calls them.

    Args:
        decoder: Hugging Face's Qwen3 base model.
    """
    for layer in decoder.layers:
        modules = [(getattr(layer, parent), name) for parent, names in _LAYER_LINEARS.items() for name in names]
        found = [(module, name) for module, name in modules if _can_be_packed(getattr(module, name))]
        for module, name in found:
            setattr(module, name, PackedLinear(getattr(module, name)))
        if found:  # layer by layer, so that no second copy of all weights lies in memory
            return_freed_memory()


def is_packed(layer: Any) -> bool:
    """Whether all linear layers of one of Hugging Face's layers were packed."""
    return all(
        isinstance(getattr(getattr(layer, parent), name), PackedLinear)
        for parent, names in _LAYER_LINEARS.items()
        for name in names
    )


def _can_be_packed(linear: Any) -> bool:
    return is_plain(linear) and linear.weight.is_cpu and packing_works(linear.weight.dtype)


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether this machine and PyTorch multiply by packed weights of a dtype, and give the right numbers.

    Only tried on x86, for which PyTorch is built with oneDNN.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or dtype not in (torch.float32, torch.bfloat16):
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    generator = torch.Generator("cpu").manual_seed(0)
    # Not initialised: that would draw from the generator that the caller's program uses.
    linear = nn.Linear(96, 80, bias=False, dtype=dtype, device="meta").to_empty(device="cpu")
    linear.weight.data.normal_(0.0, 0.1, generator=generator)
    rows = torch.randn(8, 96, generator=generator, device="cpu").to(dtype)
    others = torch.randn(8, 80, generator=generator, device="cpu").to(dtype)
    with torch.inference_mode():
        product, wide = rows.float() @ linear.weight.float().t(), others.float()
        expected = torch.stack([product, F.silu(product), product * wide, product + wide])
        try:
            packed = PackedLinear(linear)
            found = torch.stack([packed(rows), packed.silu(rows), packed.times(rows, others), others])
            packed.add_to(found[3], rows)
        except RuntimeError:  # no instructions for the dtype
            return False
        if torch.allclose(found.float(), expected, atol=1e-5 if dtype == torch.float32 else 2e-2):
            return True
    warnings.warn("products by packed weights give other numbers than plain ones; not used", stacklevel=2)
    return False


def is_plain(linear: Any) -> bool:
    """Whether a layer does nothing but multiply by its weight: it is not quantised, offloaded or hooked."""
    return (
        type(linear) is nn.Linear
        and linear.bias is None
        and type(linear.weight) is nn.Parameter
        and not (linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear))
    )
