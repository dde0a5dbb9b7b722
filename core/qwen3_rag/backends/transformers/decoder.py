"""Qwen3's layers over a packed row, on Hugging Face's modules and weights.

The modules are those that `from_pretrained` made, quantised or not (on a CPU with the weights of plain
linear layers packed, `linear.py`); only the order of their calls is ours. It spares what a packed row does
not need (masks, a batch axis, a cache), works in place where Hugging Face allocates, and computes of the
last layer only what is asked for: the tokens that end a segment. What each step computes is the published
model's; tests compare with its own forward call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen3_rag.backends.transformers.attention import attend
from qwen3_rag.backends.transformers.beginnings import Beginning
from qwen3_rag.backends.transformers.elementwise import Elementwise
from qwen3_rag.backends.transformers.layer import LayerRows, Rotation, rotation_at
from qwen3_rag.backends.transformers.layout import DeviceBatch
from qwen3_rag.backends.transformers.workspace import Workspace


def final_states(
    decoder: Any,
    placed: Callable[[torch.device], DeviceBatch],
    elementwise: Elementwise,
    known: Beginning | None = None,
    kept: Beginning | None = None,
) -> Tensor:
    """Return the final hidden state, after the last norm, of the token that ends each segment.

    Args:
        decoder: Hugging Face's Qwen3 base model; its layers may lie on several devices.
        placed: gives the batch on a device.
        elementwise: norms, rotary embedding and gate.
        known: the tokens before those of the batch, for which nothing is computed.
        kept: gets the keys and values of all tokens.

    Returns:
        Shape (segments, hidden_size), dtype of the weights.
    """
    batch = placed(decoder.embed_tokens.weight.device)
    hidden: Tensor = decoder.embed_tokens(batch.input_ids)
    rotation = _rotation(decoder, hidden, batch)
    workspace = Workspace()
    last = decoder.layers[-1]
    for index, layer in enumerate(decoder.layers):
        device = next(layer.parameters()).device
        if device != hidden.device:
            batch, hidden, workspace = placed(device), hidden.to(device), Workspace()
            rotation = _rotation(decoder, hidden, batch)
        work = LayerRows(layer, elementwise, workspace)
        known_here = None if known is None else known.layers[index]
        query, key, value = work.projections(hidden, rotation, known_here, with_query=layer is not last)
        if kept is not None:
            kept.add_layer(key, value)
        layout = batch.layout
        if layer is last:
            hidden = hidden[batch.segment_ends]
            query = work.queries(hidden, rotation_at(rotation, batch.segment_ends))
            layout = batch.ends_layout
        seen = attend(query, key, value, layout, layer.self_attn.scaling)
        work.add_attention_and_mlp(hidden, seen.flatten(1))
    hidden = hidden.to(decoder.norm.weight.device)
    return elementwise.norm(hidden, decoder.norm, torch.empty_like(hidden))


def _rotation(decoder: Any, hidden: Tensor, batch: DeviceBatch) -> Rotation:
    cosine, sine = decoder.rotary_emb(hidden[None], batch.position_ids[None])
    return cosine[0, :, None].to(hidden.device), sine[0, :, None].to(hidden.device)
