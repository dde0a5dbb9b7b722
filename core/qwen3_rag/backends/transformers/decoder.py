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
from torch import Tensor

from qwen3_rag.backends.transformers.attention import attend
from qwen3_rag.backends.transformers.device import multiplies_tiles
from qwen3_rag.backends.transformers.elementwise import Elementwise
from qwen3_rag.backends.transformers.layout import DeviceBatch

_CPU_ROWS: Final = 512
_TILE_ROWS: Final = 2048
_ROWS: Final = 16384
"""Rows that pass at once through what a layer computes row by row, which bounds its activations. On a CPU those
of a block stay in the cache and are not mapped anew: on an AMD EPYC 4,096 rows of the 0.6B widths took 0.39 s
through an MLP in blocks of 512 and 0.46 s in one, and queries' norm and rotary embedding 12 ms in place of 45.
Where matrices are multiplied by tiles, several times faster, larger blocks win: on an Intel Xeon 48 texts took
1.18 s through four layers in blocks of 512, 1.07 s in blocks of 2,048 and 1.21 s in blocks of 4,096."""


def final_states(
    decoder: Any, placed: Callable[[torch.device], DeviceBatch], elementwise: Elementwise
) -> Tensor:
    """Return the final hidden state, after the last norm, of the token that ends each segment.

    Args:
        decoder: Hugging Face's Qwen3 base model; its layers may lie on several devices.
        placed: gives the batch on a device.
        elementwise: norms, rotary embedding and gate.

    Returns:
        Shape (segments, hidden_size), dtype of the weights.
    """
    batch = placed(decoder.embed_tokens.weight.device)
    hidden: Tensor = decoder.embed_tokens(batch.input_ids)
    rotation = _rotation(decoder, hidden, batch)
    room: Projections | None = None
    *layers, last = decoder.layers
    for layer in [*layers, last]:
        device = next(layer.parameters()).device
        if device != hidden.device:
            batch, hidden, room = placed(device), hidden.to(device), None
            rotation = _rotation(decoder, hidden, batch)
        room = _projections(layer, hidden, rotation, room, elementwise, with_query=layer is not last)
        query, key, value = room
        layout = batch.layout
        if layer is last:
            hidden = hidden[batch.segment_ends]
            turned = _at(rotation, batch.segment_ends)
            normed = elementwise.norm(hidden, layer.input_layernorm)
            query = _query(layer, normed, turned, elementwise)
            layout = batch.ends_layout
        seen = attend(query, key, value, layout, layer.self_attn.scaling)
        _add_attention_and_mlp(layer, hidden, seen.flatten(1), elementwise)
    return elementwise.norm(hidden.to(decoder.norm.weight.device), decoder.norm)


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the rotary embedding, each of shape (tokens, 1, head_dim)."""

Projections = tuple[Tensor, Tensor, Tensor]
"""Queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim); rotated."""


def _rotation(decoder: Any, hidden: Tensor, batch: DeviceBatch) -> Rotation:
    cosine, sine = decoder.rotary_emb(hidden[None], batch.position_ids[None])
    return cosine[0, :, None].to(hidden.device), sine[0, :, None].to(hidden.device)


def _at(rotation: Rotation, rows: slice | Tensor) -> Rotation:
    cosine, sine = rotation
    return cosine[rows], sine[rows]


def _projections(
    layer: Any,
    hidden: Tensor,
    rotation: Rotation,
    room: Projections | None,
    elementwise: Elementwise,
    *,
    with_query: bool,
) -> Projections:
    """Return a layer's queries, keys and values of all rows, without `with_query` any queries.

    Args:
        room: those of the layer before, to write into; they are no longer read.
    """
    size = _rows_at_once(hidden)

    def block(low: int) -> Projections:
        rows = slice(low, low + size)
        turned = _at(rotation, rows)
        normed = elementwise.norm(hidden[rows], layer.input_layernorm)
        attention = layer.self_attn
        key = _heads(attention.k_proj(normed), attention.head_dim)
        value = _heads(attention.v_proj(normed), attention.head_dim)
        query = _query(layer, normed, turned, elementwise) if with_query else key[:0]
        return query, elementwise.norm_and_rotate(key, attention.k_norm, *turned), value

    first = block(0)
    if len(hidden) <= size:
        return first
    if room is None:
        query, key, value = (part.new_empty(len(hidden), *part.shape[1:]) for part in first)
        room = query, key, value
    for low in range(0, len(hidden), size):
        for whole, part in zip(room, first if low == 0 else block(low), strict=True):
            if len(part):
                whole[low : low + len(part)] = part
    return room


def _query(layer: Any, normed: Tensor, rotation: Rotation, elementwise: Elementwise) -> Tensor:
    attention = layer.self_attn
    query = _heads(attention.q_proj(normed), attention.head_dim)
    return elementwise.norm_and_rotate(query, attention.q_norm, *rotation)


def _add_attention_and_mlp(layer: Any, hidden: Tensor, seen: Tensor, elementwise: Elementwise) -> None:
    """Add what attention saw, and then the MLP's output, to the residual stream, in place."""
    mlp, size = layer.mlp, _rows_at_once(hidden)
    for block, seen_block in zip(torch.split(hidden, size), torch.split(seen, size), strict=True):
        block.add_(layer.self_attn.o_proj(seen_block).view_as(block))
        normed = elementwise.norm(block, layer.post_attention_layernorm)
        gated = elementwise.gate(mlp.gate_proj(normed), mlp.up_proj(normed))
        block.add_(mlp.down_proj(gated).view_as(block))


def _rows_at_once(hidden: Tensor) -> int:
    if multiplies_tiles(hidden.device, hidden.dtype):
        return _TILE_ROWS
    return _CPU_ROWS if hidden.device.type == "cpu" else _ROWS


def _heads(flat: Tensor, head_dim: int) -> Tensor:
    # Some quantised linear layers return a batch axis that they were not given.
    return flat.view(-1, flat.shape[-1] // head_dim, head_dim)
