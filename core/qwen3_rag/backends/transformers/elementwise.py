"""What a layer computes number by number: norms, rotary embedding and the MLP's gate.

Either PyTorch's operations one after another, each of which reads and writes all numbers anew, or kernels
that `torch.compile` makes of them, which read and write once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_rag.backends.transformers.linear import is_packed
from qwen3_rag.errors import ConfigurationError

_FEWEST_COMPILED_ROWS: Final = 8
"""Fewer are not worth a kernel, and a single one would have the compiler make one for this case alone."""

_ROWS_TO_TUNE_FOR: Final = 4097
"""Rows of the calls that kernels are made by on a GPU: the compiler fits the shape of its blocks to them."""

_CACHED_NUMBERS: Final = 1 << 19
"""Numbers whose copies in float32 stay in a CPU's cache. On an AMD EPYC with two cores, 1 MiB of cache each,
norm and rotation of 2,048 rows of 16 heads took 3.8 ms in such parts, 4.3 in quarters of them, and 5.5 where
only the norm was computed in parts."""

Rotation = tuple[Tensor, Tensor]
"""Cosines of the rotary embedding, shape (tokens, 1, head_dim), and sines of the first half of each head, shape
(tokens, 1, head_dim / 2): the second half is turned by the same angles."""


@dataclass(frozen=True)
class Norm:
    """A norm by the root mean square.

    Attributes:
        weight: factors of the last axis; where there is no kernel for it all, float32.
        epsilon: added to the mean square.
    """

    weight: Tensor
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> Norm:
        """Return Hugging Face's."""
        weight = module.weight
        return cls(weight if weight.is_cuda else weight.float(), float(module.variance_epsilon))


@dataclass(frozen=True)
class Elementwise:
    """The operations.

    Attributes:
        norm: states of any shape, a norm and room for the result; divides by the root mean square over the last
            axis, in float32, and multiplies by the weight. Returns the result, which need not lie in that room.
        norm_and_rotate: heads (rows, heads, head_dim), a norm, the rows' rotation, and a tensor for the result;
            norms each head, then turns each half of it against the other. May overwrite the heads.
        gate: gates and values, both (rows, any); SiLU of the one times the other, written to the gates.
    """

    norm: Callable[[Tensor, Norm, Tensor], Tensor]
    norm_and_rotate: Callable[[Tensor, Norm, Rotation, Tensor], None]
    gate: Callable[[Tensor, Tensor], Tensor]


def blocks(size: int, first: Tensor, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Cut tensors of equally many rows into blocks of `size` rows, the last of fewer."""
    if first.shape[0] <= size:
        return [(first, *others)]
    return zip(*(torch.split(rows, size) for rows in (first, *others)), strict=True)


def rms_norm(states: Tensor, norm: Norm, out: Tensor) -> Tensor:
    """See `Elementwise.norm`. `out` may be `states`."""
    if states.is_cuda:
        return F.rms_norm(states, norm.weight.shape, norm.weight, norm.epsilon)
    # On a CPU PyTorch's function makes as many temporaries as the formula.
    for part, result in _parts(states, out):
        normed = _normed(part, norm, result)
        if normed is not result:
            result.copy_(normed)
    return out


def _normed(states: Tensor, norm: Norm, room: Tensor) -> Tensor:
    """Return normed states in float32, in the room if that is float32 too."""
    wide = states.float()
    square: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    scale = square.div_(wide.shape[-1]).add_(norm.epsilon).rsqrt_()
    return torch.mul(wide, scale, out=room if wide is states else wide).mul_(norm.weight)


def _norm_and_rotate(heads: Tensor, norm: Norm, rotation: Rotation, out: Tensor) -> None:
    for part, cosine, sine, result in _parts(heads, *rotation, out):
        if part.device.type == "cpu":
            # float32 in between costs nothing: the copies stay in the cache.
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
    size = _CACHED_NUMBERS // first.shape[1:].numel() if first.device.type == "cpu" else first.shape[0]
    return blocks(size, first, *others)


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
        torch.compile(formula, dynamic=False)  # but for what `_try` marks
        for formula in (_norm_formula, _norm_and_rotate_formula, _gate_formula)
    )

    def norm_(states: Tensor, how: Norm, out: Tensor) -> Tensor:
        if states.shape[0] < _FEWEST_COMPILED_ROWS:
            return EAGER.norm(states, how, out)
        norm(states, how.weight, how.epsilon, out)
        return out

    def norm_and_rotate_(heads: Tensor, how: Norm, rotation: Rotation, out: Tensor) -> None:
        if heads.shape[0] < _FEWEST_COMPILED_ROWS:
            EAGER.norm_and_rotate(heads, how, rotation, out)
        else:
            norm_and_rotate(heads, how.weight, how.epsilon, *rotation, out)

    def gate_(gates: Tensor, values: Tensor) -> Tensor:
        if gates.shape[0] < _FEWEST_COMPILED_ROWS:
            return EAGER.gate(gates, values)
        gate(gates, values)
        return gates

    return Elementwise(norm_, norm_and_rotate_, gate_)


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
    # Flipped rather than put together of two results: those a compiler would write to memory first.
    signs = torch.arange(-1, 2, 2, device=heads.device).unsqueeze(-1)
    turned = halves * cosine + halves.flip(-2) * (sine.unsqueeze(-2) * signs)
    out.copy_(turned.flatten(-2))


def _gate_formula(gates: Tensor, values: Tensor) -> None:
    gates.copy_(F.silu(gates.float()) * values)


def _one_of_each_device(decoder: Any) -> list[Any]:
    return list({next(layer.parameters()).device: layer for layer in decoder.layers}.values())


def _try(operations: Elementwise, layer: Any, dtype: torch.dtype) -> None:
    """Call every operation with tensors that lie as a layer's do, so that no call compiles it anew.

    Only the number of rows may vary: where sizes of heads and states are known, a compiler keeps a row in
    registers. Models of other sizes or element types compile all once more. torch.compile makes up to 8 kernels
    of a formula, which is four such models, two numbers of heads each; of further ones it warns, and runs the
    formulas as they stand.
    """
    attention, config = layer.self_attn, layer.self_attn.config
    # Made outside of inference mode, as the layers' are: compiled code tells such tensors apart.
    state_norm, query_norm, key_norm = map(Norm.of, (layer.input_layernorm, attention.q_norm, attention.k_norm))

    device = state_norm.weight.device
    count = _ROWS_TO_TUNE_FOR if device.type == "cuda" else 2 * _FEWEST_COMPILED_ROWS + 1

    def some(*shape: int) -> Tensor:
        rows = torch.ones(count, *shape, dtype=dtype, device=device)
        torch._dynamo.mark_dynamic(rows, 0)
        return rows

    with torch.inference_mode():
        operations.norm(some(config.hidden_size), state_norm, some(config.hidden_size))
        rotation = some(1, attention.head_dim), some(1, attention.head_dim // 2)
        for number, norm in (
            (config.num_attention_heads, query_norm),
            (config.num_key_value_heads, key_norm),
        ):
            heads, out = (some(number, attention.head_dim) for _ in range(2))
            operations.norm_and_rotate(heads, norm, rotation, out)
        if not is_packed(layer):  # else products gate
            operations.gate(some(config.intermediate_size), some(config.intermediate_size))
