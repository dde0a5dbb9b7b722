"""What a layer computes number by number: norms, rotary embedding and the MLP's gate.

Either PyTorch's operations one after another, each of which reads and writes all numbers anew, or kernels
that `torch.compile` makes of them, which read and write once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3_rag.errors import ConfigurationError

_FEWEST_COMPILED_ROWS: Final = 8
"""Fewer are not worth a kernel, and a single one would have the compiler make one for this case alone."""


@dataclass(frozen=True)
class Elementwise:
    """The operations, each with a result of the dtype of its first argument.

    Attributes:
        norm: states of any shape and a norm's module; divides by the root mean square over the last axis,
            in float32, and multiplies by the module's weight.
        norm_and_rotate: heads (rows, heads, head_dim), a norm's module, cosines and sines (rows, 1, head_dim);
            norms each head, then turns each half of it against the other.
        gate: gates and values, both (rows, any); SiLU of the one times the other. May overwrite the gates.
    """

    norm: Callable[[Tensor, nn.Module], Tensor]
    norm_and_rotate: Callable[[Tensor, nn.Module, Tensor, Tensor], Tensor]
    gate: Callable[[Tensor, Tensor], Tensor]


def rms_norm(states: Tensor, norm: nn.Module) -> Tensor:
    """See `Elementwise.norm`."""
    weight, epsilon = _parts(norm)
    if states.is_cuda:
        return F.rms_norm(states, weight.shape, weight, epsilon)
    # On a CPU PyTorch's function makes as many temporaries as the formula; this makes one.
    wide = states.float()
    square: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    scale = square.div_(wide.shape[-1]).add_(epsilon).rsqrt_()
    return (wide * scale).to(states.dtype).mul_(weight)


def _norm_and_rotate(heads: Tensor, norm: nn.Module, cosine: Tensor, sine: Tensor) -> Tensor:
    normed = rms_norm(heads, norm)
    half = heads.shape[-1] // 2
    turned = normed * cosine
    turned[..., :half].addcmul_(normed[..., half:], sine[..., :half], value=-1)
    turned[..., half:].addcmul_(normed[..., :half], sine[..., half:])
    return turned


def _gate(gates: Tensor, values: Tensor) -> Tensor:
    return F.silu(gates, inplace=True).mul_(values)


EAGER: Final = Elementwise(rms_norm, _norm_and_rotate, _gate)


def compiled(decoder: Any, dtype: torch.dtype) -> Elementwise:
    """Return compiled operations, made for a decoder; that takes some seconds, less where they are cached.

    They round once at the end where the single operations round in between, so in bfloat16 they come nearer
    to the exact result.

    Args:
        decoder: Hugging Face's Qwen3 base model.
        dtype: of its weights.

    Raises:
        ConfigurationError: there is no compiler, or it fails.
    """
    operations = _compiled()
    try:
        with torch.inference_mode():
            for layer in _one_of_each_device(decoder):
                _try(operations, layer, dtype)
    except Exception as error:  # whatever a compiler raises
        raise ConfigurationError(
            "compile=True needs what torch.compile needs, a C++ compiler and on CUDA Triton; install them, or "
            f"leave compile out of model_kwargs. What failed: {error}"
        ) from error
    return operations


@cache
def _compiled() -> Elementwise:
    norm, norm_and_rotate, gate = (
        torch.compile(formula, dynamic=True)
        for formula in (_norm_formula, _norm_and_rotate_formula, _gate_formula)
    )

    def norm_(states: Tensor, module: nn.Module) -> Tensor:
        if len(states) < _FEWEST_COMPILED_ROWS:
            return EAGER.norm(states, module)
        result: Tensor = norm(states, *_parts(module))
        return result

    def norm_and_rotate_(heads: Tensor, module: nn.Module, cosine: Tensor, sine: Tensor) -> Tensor:
        if len(heads) < _FEWEST_COMPILED_ROWS:
            return EAGER.norm_and_rotate(heads, module, cosine, sine)
        result: Tensor = norm_and_rotate(heads, *_parts(module), cosine, sine)
        return result

    def gate_(gates: Tensor, values: Tensor) -> Tensor:
        if len(gates) < _FEWEST_COMPILED_ROWS:
            return EAGER.gate(gates, values)
        result: Tensor = gate(gates, values)
        return result

    return Elementwise(norm_, norm_and_rotate_, gate_)


def _norm_formula(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    wide = states.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * weight).to(states.dtype)


def _norm_and_rotate_formula(
    heads: Tensor, weight: Tensor, epsilon: float, cosine: Tensor, sine: Tensor
) -> Tensor:
    wide = heads.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * weight
    (one, two), (cosine_one, cosine_two), (sine_one, sine_two) = map(_halves, (wide, cosine, sine))
    turned = torch.stack((one * cosine_one - two * sine_one, two * cosine_two + one * sine_two), -2)
    return turned.flatten(-2).to(heads.dtype)


def _halves(heads: Tensor) -> tuple[Tensor, ...]:
    return heads.view(*heads.shape[:-1], 2, heads.shape[-1] // 2).unbind(-2)


def _gate_formula(gates: Tensor, values: Tensor) -> Tensor:
    return (F.silu(gates.float()) * values).to(gates.dtype)


def _parts(norm: nn.Module) -> tuple[Tensor, float]:
    weight, epsilon = norm.weight, float(norm.variance_epsilon)  # type: ignore[arg-type]
    assert isinstance(weight, Tensor)
    return weight, epsilon


def _one_of_each_device(decoder: Any) -> list[Any]:
    return list({next(layer.parameters()).device: layer for layer in decoder.layers}.values())


def _try(operations: Elementwise, layer: Any, dtype: torch.dtype) -> None:
    """Call every operation with the shapes that a layer has."""
    attention, config = layer.self_attn, layer.self_attn.config
    rows, device = 2 * _FEWEST_COMPILED_ROWS, layer.input_layernorm.weight.device
    states = torch.ones(rows, config.hidden_size, dtype=dtype, device=device)
    operations.norm(states, layer.input_layernorm)
    angles = torch.ones(rows, 1, attention.head_dim, dtype=dtype, device=device)
    for heads, norm in (
        (config.num_attention_heads, attention.q_norm),
        (config.num_key_value_heads, attention.k_norm),
    ):
        states = torch.ones(rows, heads, attention.head_dim, dtype=dtype, device=device)
        operations.norm_and_rotate(states, norm, angles, angles)
    gates = torch.ones(rows, config.intermediate_size, dtype=dtype, device=device)
    operations.gate(gates, gates.clone())
