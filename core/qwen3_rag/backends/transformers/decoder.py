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
from qwen3_rag.backends.transformers.elementwise import Elementwise, Norm, Rotation
from qwen3_rag.backends.transformers.layer import Layer
from qwen3_rag.backends.transformers.layout import DeviceBatch
from qwen3_rag.backends.transformers.workspace import Workspace


class Decoder:
    """The layers, in the order of our calls.

    Args:
        modules: Hugging Face's Qwen3 base model, which does not change any more; its layers may lie on several
            devices.
        elementwise: norms, rotary embedding and gate.
    """

    def __init__(self, modules: Any, elementwise: Elementwise) -> None:
        self._embedding, self._rotary = modules.embed_tokens, modules.rotary_emb
        self._layers = [Layer(layer, elementwise) for layer in modules.layers]
        self._norm = Norm.of(modules.norm)
        self._elementwise = elementwise

    def final_states(
        self,
        placed: Callable[[torch.device], DeviceBatch],
        known: Beginning | None = None,
        kept: Beginning | None = None,
    ) -> Tensor:
        """Return the final hidden state, after the last norm, of the token that ends each segment.

        Args:
            placed: gives the batch on a device.
            known: the tokens before those of the batch, for which nothing is computed.
            kept: gets the keys and values of all tokens.

        Returns:
            Shape (segments, hidden_size), dtype of the weights; more rows if `segment_ends` has more.
        """
        batch = placed(self._embedding.weight.device)
        hidden: Tensor = self._embedding(batch.input_ids)
        rotation = self._rotation(hidden, batch)
        workspace = Workspace()
        last = self._layers[-1]
        for index, layer in enumerate(self._layers):
            if layer.device != hidden.device:
                batch, hidden, workspace = placed(layer.device), hidden.to(layer.device), Workspace()
                rotation = self._rotation(hidden, batch)
            known_here = None if known is None else known.layers[index]
            query, key, value = layer.projections(
                hidden, rotation, known_here, workspace, with_query=layer is not last
            )
            if kept is not None:
                kept.add_layer(key, value)
            layout = batch.layout
            if layer is last:
                hidden, *of_ends = (rows[batch.segment_ends] for rows in (hidden, *rotation))
                query = layer.queries(hidden, (of_ends[0], of_ends[1]), workspace)
                layout = batch.ends_layout
            seen = attend(query, key, value, layout, layer.scale)
            layer.add_attention_and_mlp(hidden, seen, workspace)
        hidden = hidden.to(self._norm.weight.device)
        return self._elementwise.norm(hidden, self._norm, torch.empty_like(hidden))

    def _rotation(self, hidden: Tensor, batch: DeviceBatch) -> Rotation:
        angles = self._rotary(hidden[None], batch.position_ids[None])
        cosine, sine = (part[0, :, None].to(hidden.device) for part in angles)
        return cosine, sine[..., : sine.shape[-1] // 2].contiguous()
