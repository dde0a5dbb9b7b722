"""Qwen3's layers over a packed row, on Hugging Face's modules and weights.

The modules are those that `from_pretrained` made, quantised or not; only the order of their calls is
ours. It spares what a packed row does not need (masks, a batch axis, a cache), works in place where
Hugging Face allocates, and computes of the last layer only what is asked for: the tokens that end a segment.
What each step computes is the published model's; tests compare with its own forward call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3_rag.backends.transformers.attention import attend
from qwen3_rag.backends.transformers.layout import DeviceBatch, PackedLayout

_CPU_MLP_ROWS: Final = 512
_MLP_ROWS: Final = 16384
"""Rows that pass through an MLP at once, which bounds its activations, a model's largest. On a CPU those of a
block stay in the cache: 4,096 rows of the 0.6B widths took 0.39 s in blocks of 512 and 0.46 s in one."""


def final_states(decoder: Any, placed: Callable[[torch.device], DeviceBatch]) -> Tensor:
    """Return the final hidden state, after the last norm, of the token that ends each segment.

    Args:
        decoder: Hugging Face's Qwen3 base model; its layers may lie on several devices.
        placed: gives the batch on a device.

    Returns:
        Shape (segments, hidden_size), dtype of the weights.
    """
    batch = placed(decoder.embed_tokens.weight.device)
    hidden: Tensor = decoder.embed_tokens(batch.input_ids)
    rotation = _rotation(decoder, hidden, batch)
    *layers, last = decoder.layers
    for layer in [*layers, last]:
        device = next(layer.parameters()).device
        if device != hidden.device:
            batch, hidden = placed(device), hidden.to(device)
            rotation = _rotation(decoder, hidden, batch)
        rows = batch.segment_ends if layer is last else None
        hidden = _attention_block(layer, hidden, rotation, batch, rows)
        _mlp_block(layer, hidden)
    return rms_norm(hidden.to(decoder.norm.weight.device), decoder.norm)


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the rotary embedding, each of shape (tokens, 1, head_dim)."""


def _rotation(decoder: Any, hidden: Tensor, batch: DeviceBatch) -> Rotation:
    cosine, sine = decoder.rotary_emb(hidden[None], batch.position_ids[None])
    return cosine[0, :, None].to(hidden.device), sine[0, :, None].to(hidden.device)


def _attention_block(
    layer: Any, hidden: Tensor, rotation: Rotation, batch: DeviceBatch, rows: Tensor | None
) -> Tensor:
    """Return the residual stream after attention: in place, or for `rows` only."""
    attention = layer.self_attn
    normed = rms_norm(hidden, layer.input_layernorm)
    key = _heads(attention.k_proj(normed), attention.head_dim)
    value = _heads(attention.v_proj(normed), attention.head_dim)
    key = rotate(rms_norm(key, attention.k_norm), *rotation)
    layout: PackedLayout = batch.layout
    cosine, sine = rotation
    if rows is not None:
        normed, hidden, layout = normed[rows], hidden[rows], batch.ends_layout
        cosine, sine = cosine[rows], sine[rows]
    query = _heads(attention.q_proj(normed), attention.head_dim)
    query = rotate(rms_norm(query, attention.q_norm), cosine, sine)
    seen = attend(query, key, value, layout, attention.scaling)
    return hidden.add_(attention.o_proj(seen.flatten(1)))


def _mlp_block(layer: Any, hidden: Tensor) -> None:
    """Add the MLP's output to the residual stream, in place."""
    mlp = layer.mlp
    for block in torch.split(hidden, _CPU_MLP_ROWS if hidden.device.type == "cpu" else _MLP_ROWS):
        normed = rms_norm(block, layer.post_attention_layernorm)
        gate = F.silu(mlp.gate_proj(normed), inplace=True)
        block.add_(mlp.down_proj(gate.mul_(mlp.up_proj(normed))))


def _heads(flat: Tensor, head_dim: int) -> Tensor:
    return flat.view(len(flat), -1, head_dim)


def rms_norm(states: Tensor, norm: nn.Module) -> Tensor:
    """Divide by the root mean square over the last axis, in float32, and multiply by the module's weight.

    Args:
        states: any shape, not changed.
        norm: a module with `weight` and `variance_epsilon`.
    """
    weight, epsilon = norm.weight, float(norm.variance_epsilon)  # type: ignore[arg-type]
    assert isinstance(weight, Tensor)
    if states.is_cuda:
        return F.rms_norm(states, weight.shape, weight, epsilon)
    # On a CPU PyTorch's function makes as many temporaries as the formula; this makes one.
    wide = states.float()
    square: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    scale = square.div_(wide.shape[-1]).add_(epsilon).rsqrt_()
    return (wide * scale).to(states.dtype).mul_(weight)


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply the rotary embedding: each half of a head is turned against the other.

    Args:
        heads: shape (tokens, heads, head_dim), not changed.
        cosine, sine: shape (tokens, 1, head_dim).
    """
    half = heads.shape[-1] // 2
    turned = heads * cosine
    turned[..., :half].addcmul_(heads[..., half:], sine[..., :half], value=-1)
    turned[..., half:].addcmul_(heads[..., :half], sine[..., half:])
    return turned
