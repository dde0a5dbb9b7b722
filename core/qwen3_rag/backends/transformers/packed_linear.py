"""Linear layers on a CPU whose weights are prepacked into oneDNN's blocked layout."""

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
"""Row count that oneDNN chooses the layout for: a query or a few. On an AMD EPYC the layout for 512 rows was no
faster with 512."""

_MAX_PADDED_BATCH_ROWS: Final = 128
"""Most rows of a batch that is padded as a whole. On an AMD EPYC 28 matmuls of 15 rows took 8.0 ms where each
padded its own input, and of 16 rows 7.3. Large batches gain nothing: their blocks are padded by fewer rows."""

_LAYER_LINEARS: Final = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


class PackedLinear(nn.Module):
    """A linear layer without bias on a CPU, with its weight in oneDNN's blocked layout.

    PyTorch re-packs the weight in every call, a fifth of the time of 40 rows in bfloat16 on an AMD EPYC; in
    float32 it uses MKL, which took 1.4 to 1.7 times as long.

    oneDNN compiles and caches a kernel of half a megabyte or more per row count, so inputs are padded to one of
    a few row counts: otherwise the cache grew to gigabytes.

    Args:
        linear: has the weight, shape (out_features, in_features); a packed copy of it is kept.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the product of rows, shape (rows, in_features); shape (rows, out_features)."""
        count = rows.shape[0]
        return self._pointwise(_zero_padded(rows, padded_row_count(count)), "none")[:count]

    def add_to(self, states: Tensor, rows: Tensor) -> None:
        """Add the product of rows to states, in place, rounded once.

        Args:
            states: shape (states, out_features).
            rows: shape (rows, in_features), at least as many; those beyond the states are padding.
        """
        count = states.shape[0]
        padded = padded_row_count(count)
        states.copy_(self._with(_zero_padded(rows, padded), _zero_padded(states, padded), "add")[:count])

    def silu(self, rows: Tensor) -> Tensor:
        """Return SiLU of the product, rounded once; the row count must be a `padded_row_count`."""
        return self._pointwise(rows, "swish")

    def times(self, rows: Tensor, factors: Tensor) -> Tensor:
        """Return the product times factors of its shape, rounded once; row count as for `silu`."""
        return self._with(rows, factors, "mul")

    def _pointwise(self, rows: Tensor, operation: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, None, operation, [], "")
        return product

    def _with(self, rows: Tensor, other: Tensor, operation: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._packed, None, operation)
        return product


def _zero_padded(rows: Tensor, count: int) -> Tensor:
    """Return `count` rows: the given ones, then zeros."""
    missing = count - rows.shape[0]
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def padded_row_count(rows: int) -> int:
    """Return the row count that so many rows are padded to.

    Multiples of 4 up to 64, of 8 up to 128, then 8 values per doubling: 56 values up to 2,048.
    """
    step = max(4 if rows <= 64 else 8, 1 << max(0, (rows - 1).bit_length() - 4))
    return -(-rows // step) * step


def padded_batch_row_count(rows: int) -> int:
    """Return the row count that a batch is padded to, so that no matmul of a small one has to pad its input."""
    return padded_row_count(rows) if rows <= _MAX_PADDED_BATCH_ROWS else rows


def pack_linears(decoder: Any) -> None:
    """Replace plain linear layers of a decoder on a CPU by packed ones.

    Nothing is replaced where PyTorch lacks the operations: they are not part of its public interface, but
    `torch.compile` generates calls of them for linear layers.

    Args:
        decoder: Hugging Face's Qwen3 base model.
    """
    for layer in decoder.layers:
        modules = [(getattr(layer, parent), name) for parent, names in _LAYER_LINEARS.items() for name in names]
        found = [(module, name) for module, name in modules if _can_be_packed(getattr(module, name))]
        for module, name in found:
            setattr(module, name, PackedLinear(getattr(module, name)))
        if found:  # layer by layer, so that memory never holds a second copy of all weights
            return_freed_memory()


def is_packed(layer: Any) -> bool:
    """Whether all linear layers of a decoder layer were packed."""
    return all(
        isinstance(getattr(getattr(layer, parent), name), PackedLinear)
        for parent, names in _LAYER_LINEARS.items()
        for name in names
    )


def _can_be_packed(linear: Any) -> bool:
    return is_plain(linear) and linear.weight.is_cpu and packing_works(linear.weight.dtype)


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether packed linear layers of a dtype work on this machine and compute what plain ones do.

    Only tried on x86, where PyTorch is built with oneDNN.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or dtype not in (torch.float32, torch.bfloat16):
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    generator = torch.Generator("cpu").manual_seed(0)
    # Without initialisation, which would draw from the global generator, the caller's program's.
    linear = nn.Linear(96, 80, bias=False, dtype=dtype, device="meta").to_empty(device="cpu")
    linear.weight.data.normal_(0.0, 0.1, generator=generator)
    rows = torch.randn(8, 96, generator=generator, device="cpu").to(dtype)
    other = torch.randn(8, 80, generator=generator, device="cpu").to(dtype)
    with torch.inference_mode():
        product, wide = rows.float() @ linear.weight.float().t(), other.float()
        expected = torch.stack([product, F.silu(product), product * wide, product + wide])
        try:
            packed = PackedLinear(linear)
            found = torch.stack([packed(rows), packed.silu(rows), packed.times(rows, other), other])
            packed.add_to(found[3], rows)
        except RuntimeError:  # no instructions for the dtype
            return False
        if torch.allclose(found.float(), expected, atol=1e-5 if dtype == torch.float32 else 2e-2):
            return True
    warnings.warn(
        f"oneDNN's prepacked linear layers differ from PyTorch's on this machine in {dtype}; using PyTorch's",
        stacklevel=2,
    )
    return False


def is_plain(linear: Any) -> bool:
    """Whether a layer is a linear one without bias that is not quantised, offloaded or hooked."""
    return (
        type(linear) is nn.Linear
        and linear.bias is None
        and type(linear.weight) is nn.Parameter
        and not (linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear))
    )
