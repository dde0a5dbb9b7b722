"""Element-wise operations of a layer: norms, rotary embedding and the MLP's gate.

Either PyTorch's operations one after another, each of which reads and writes all elements again, or the fused
kernels that `torch.compile` generates, which read and write them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_rag.backends.transformers.packed_linear import is_packed
from qwen3_rag.errors import ConfigurationError

_FEWEST_COMPILED_ROWS: Final = 8
"""Calls of fewer rows run eagerly: they are not worth a kernel, and the compiler would specialise on a size of
1. Chosen, not tuned."""

_ROWS_TO_TUNE_FOR: Final = 4097
"""Rows of the calls that kernels are compiled by on a GPU, where the compiler chooses block shapes by them.
Chosen, not tuned."""

_CACHED_ELEMENTS: Final = 1 << 19
"""Elements whose float32 copies stay in a CPU's cache. On an AMD EPYC with two cores, 1 MiB of cache each, norm
and rotation of 2,048 rows of 16 heads took 3.8 ms in parts of this size, 4.3 in quarters of it, and 5.5 where
only the norm was computed in parts."""

Rotation = tuple[Tensor, Tensor]
"""Cosines of the rotary embedding, shape (tokens, 1, head_dim), and sines of the first half of each head, shape
(tokens, 1, head_dim / 2): the second half is rotated by the same angles."""


@dataclass(frozen=True)
class Norm:
    """An RMS norm.

    Attributes:
        weight: shape (last axis,); in float32 except on CUDA, whose fused kernel takes it as it is.
        epsilon: added to the mean square.
    """

    weight: Tensor
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> Norm:
        """Return the norm of a Hugging Face module."""
        weight = module.weight
        return cls(weight if weight.is_cuda else weight.float(), float(module.variance_epsilon))


@dataclass(frozen=True)
class Elementwise:
    """The operations.

    Attributes:
        norm: states, shape (rows, ...), a norm, and an output tensor like the states; RMS norm over the last
            axis, computed in float32. Returns the result, which need not be the output tensor.
        norm_and_rotate: heads, shape (rows, heads, head_dim), a norm, the rows' rotation, and an output tensor
            like the heads; RMS norm of each head, then rotary embedding. May overwrite the heads.
        gate: gates and values, both (rows, any); returns SiLU of the gates times the values, written to the
            gates.
    """

    norm: Callable[[Tensor, Norm, Tensor], Tensor]
    norm_and_rotate: Callable[[Tensor, Norm, Rotation, Tensor], None]
    gate: Callable[[Tensor, Tensor], Tensor]


def blocks(size: int, first: Tensor, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Split tensors with the same row count into blocks of `size` rows; the last may have fewer."""
    if first.shape[0] <= size:
        return [(first, *others)]
    return zip(*(torch.split(rows, size) for rows in (first, *others)), strict=True)


def rms_norm(states: Tensor, norm: Norm, out: Tensor) -> Tensor:
    """See `Elementwise.norm`. `out` may be `states`."""
    if states.is_cuda:
        return F.rms_norm(states, norm.weight.shape, norm.weight, norm.epsilon)
    # On a CPU PyTorch's function allocates as many temporaries as the formula.
    for part, result in _parts(states, out):
        normed = _normed(part, norm, result)
        if normed is not result:
            result.copy_(normed)
    return out


def _normed(states: Tensor, norm: Norm, out: Tensor) -> Tensor:
    """Return normed states in float32, written to `out` if the states are float32 too."""
    wide = states.float()
    square: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    scale = square.div_(wide.shape[-1]).add_(norm.epsilon).rsqrt_()
    return torch.mul(wide, scale, out=out if wide is states else wide).mul_(norm.weight)


def _norm_and_rotate(heads: Tensor, norm: Norm, rotation: Rotation, out: Tensor) -> None:
    for part, cosine, sine, result in _parts(heads, *rotation, out):
        if part.device.type == "cpu":
            # Intermediate results in float32 cost nothing: they stay in the cache.
            turned = result if result.dtype == torch.float32 else torch.empty_like(part, dtype=torch.float32)
            _rotate(_normed(part, norm, part), cosine.float(), sine.float(), turned)
            if turned is not result:
                result.copy_(turned)
        else:
            _rotate(rms_norm(part, norm, part), cosine, sine, result)


def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor, out: Tensor) -> None:
    torch.mul(heads, cosine, out=out)
    (one, two), (turned_one, turned_two) = heads.chunk(2, -1), out.chunk(2, -1)
    turned_one.addcmul_(two, sine, value=-1)
    turned_two.addcmul_(one, sine)


def _parts(first: Tensor, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
    size = _CACHED_ELEMENTS // first.shape[1:].numel() if first.device.type == "cpu" else first.shape[0]
    return blocks(size, first, *others)


def _gate(gates: Tensor, values: Tensor) -> Tensor:
    return F.silu(gates, inplace=True).mul_(values)


EAGER: Final = Elementwise(rms_norm, _norm_and_rotate, _gate)


def compiled(decoder: Any, dtype: torch.dtype) -> Elementwise:
    """Return operations compiled for a decoder. Takes some seconds, less where the compiler's cache has them.

    They round once at the end where the eager operations round in between, so in bfloat16 they are more
    accurate.

    Args:
        decoder: Hugging Face's Qwen3 base model.
        dtype: of its weights.

    Raises:
        ConfigurationError: there is no compiler, or it fails.
    """
    operations = _compiled()
    try:
        for layer in _one_layer_per_device(decoder):
            _compile_for(operations, layer, dtype)
    except Exception as error:  # whatever a compiler raises
        raise ConfigurationError(
            "compile=True needs what torch.compile needs, a C++ compiler and on CUDA Triton; install them, or "
            f"leave compile out of model_kwargs. What failed: {error}"
        ) from error
    return operations


@cache
def _compiled() -> Elementwise:
    fused_norm, fused_norm_and_rotate, fused_gate = (
        torch.compile(formula, dynamic=False)  # except what `_compile_for` marks
        for formula in (_norm_formula, _norm_and_rotate_formula, _gate_formula)
    )

    def norm_rows(states: Tensor, norm: Norm, out: Tensor) -> Tensor:
        if states.shape[0] < _FEWEST_COMPILED_ROWS:
            return EAGER.norm(states, norm, out)
        fused_norm(states, norm.weight, norm.epsilon, out)
        return out

    def norm_and_rotate(heads: Tensor, norm: Norm, rotation: Rotation, out: Tensor) -> None:
        if heads.shape[0] < _FEWEST_COMPILED_ROWS:
            EAGER.norm_and_rotate(heads, norm, rotation, out)
        else:
            fused_norm_and_rotate(heads, norm.weight, norm.epsilon, *rotation, out)

    def gate(gates: Tensor, values: Tensor) -> Tensor:
        if gates.shape[0] < _FEWEST_COMPILED_ROWS:
            return EAGER.gate(gates, values)
        fused_gate(gates, values)
        return gates

    return Elementwise(norm_rows, norm_and_rotate, gate)


def _norm_formula(states: Tensor, weight: Tensor, epsilon: float, out: Tensor) -> None:
    wide = states.float()
    out.copy_(wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * weight)


def _norm_and_rotate_formula(
    heads: Tensor, weight: Tensor, epsilon: float, cosine: Tensor, sine: Tensor, out: Tensor
) -> None:
    wide = heads.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * weight
    half = sine.shape[-1]
    halves, cosine = wide.view(*wide.shape[:-1], 2, half), cosine[..., :half].unsqueeze(-2)
    # A flip, because the compiler would materialise the operands of a concatenation.
    signs = torch.arange(-1, 2, 2, device=heads.device).unsqueeze(-1)
    turned = halves * cosine + halves.flip(-2) * (sine.unsqueeze(-2) * signs)
    out.copy_(turned.flatten(-2))


def _gate_formula(gates: Tensor, values: Tensor) -> None:
    gates.copy_(F.silu(gates.float()) * values)


def _one_layer_per_device(decoder: Any) -> list[Any]:
    return list({next(layer.parameters()).device: layer for layer in decoder.layers}.values())


def _compile_for(operations: Elementwise, layer: Any, dtype: torch.dtype) -> None:
    """Call every operation with tensors laid out as a layer's are, so that no later call recompiles it.

    Only the row count is dynamic; fixed head and hidden sizes let the compiler keep a row in registers.
    torch.compile caches 8 variants per function, enough for four models (query and key head counts differ);
    beyond that it warns and runs eagerly.
    """
    attention, config = layer.self_attn, layer.self_attn.config
    # Created outside of inference mode, as the layers' are: compiled code distinguishes such tensors.
    state_norm, query_norm, key_norm = map(Norm.of, (layer.input_layernorm, attention.q_norm, attention.k_norm))

    device = state_norm.weight.device
    count = _ROWS_TO_TUNE_FOR if device.type == "cuda" else 2 * _FEWEST_COMPILED_ROWS + 1

    def example(*shape: int) -> Tensor:
        rows = torch.ones(count, *shape, dtype=dtype, device=device)
        torch._dynamo.mark_dynamic(rows, 0)
        return rows

    with torch.inference_mode():
        operations.norm(example(config.hidden_size), state_norm, example(config.hidden_size))
        rotation = example(1, attention.head_dim), example(1, attention.head_dim // 2)
        for count_of_heads, norm in (
            (config.num_attention_heads, query_norm),
            (config.num_key_value_heads, key_norm),
        ):
            heads, out = (example(count_of_heads, attention.head_dim) for _ in range(2))
            operations.norm_and_rotate(heads, norm, rotation, out)
        if not is_packed(layer):  # packed linear layers compute the gate themselves
            operations.gate(example(config.intermediate_size), example(config.intermediate_size))
