"""Qwen3's layers over a packed row, on Hugging Face's modules and weights.

The modules are those that `from_pretrained` made, quantised or not (on a CPU plain linear layers are replaced
by `PackedLinear`); only the forward pass is ours. It leaves out what a packed row does not need (masks, a batch
axis, a cache object), works in place where Hugging Face allocates, and computes the last layer only for the
tokens that end a segment. Each step computes what the published model does; tests compare with its own forward
call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen3_rag.backends.transformers.attention import attend
from qwen3_rag.backends.transformers.elementwise import Elementwise, Norm, Rotation
from qwen3_rag.backends.transformers.layer import Layer
from qwen3_rag.backends.transformers.layout import DeviceBatch
from qwen3_rag.backends.transformers.prefix_cache import CachedPrefix
from qwen3_rag.backends.transformers.workspace import Workspace


class Decoder:
    """The forward pass from token ids to final hidden states.

    Args:
        modules: Hugging Face's Qwen3 base model, which must not change afterwards; its layers may be on several
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
        batch_on: Callable[[torch.device], DeviceBatch],
        past: CachedPrefix | None = None,
        record_to: CachedPrefix | None = None,
    ) -> Tensor:
        """Return the final hidden state, after the last norm, of the token that ends each segment.

        Args:
            batch_on: from a device to the batch there.
            past: the prefix before the tokens of the batch, which is not computed again.
            record_to: gets the keys and values of its tokens, layer by layer.

        Returns:
            Shape (segments, hidden_size), dtype of the weights; more rows if `segment_ends` is padded.
        """
        batch = batch_on(self._embedding.weight.device)
        hidden: Tensor = self._embedding(batch.input_ids)
        rotation = self._rotation(hidden, batch)
        workspace = Workspace()
        last = self._layers[-1]
        for index, layer in enumerate(self._layers):
            if layer.device != hidden.device:
                batch, hidden, workspace = batch_on(layer.device), hidden.to(layer.device), Workspace()
                rotation = self._rotation(hidden, batch)
            past_of_layer = None if past is None else past.layers[index]
            query, key, value = layer.projections(
                hidden, rotation, past_of_layer, workspace, with_query=layer is not last
            )
            if record_to is not None:
                record_to.add_layer(key, value)
            layout = batch.layout
            if layer is last:
                hidden, cosine, sine = (rows[batch.segment_ends] for rows in (hidden, *rotation))
                query = layer.queries(hidden, (cosine, sine), workspace)
                layout = batch.ends_layout
            attended = attend(query, key, value, layout, layer.scale)
            layer.add_attention_and_mlp(hidden, attended, workspace)
        hidden = hidden.to(self._norm.weight.device)
        return self._elementwise.norm(hidden, self._norm, torch.empty_like(hidden))

    def _rotation(self, hidden: Tensor, batch: DeviceBatch) -> Rotation:
        """Return what the rotary module gives, bit for bit, by its frequencies and its factor.

        Its own call multiplies matrices in Transformers 5.17 and before. On some GPUs that rounds positions
        beyond 2,048 where the program allows TF32, in any dtype (huggingface/transformers#48428).
        """
        frequencies = self._rotary.inv_freq.to(hidden.device, torch.float32)
        angles = batch.position_ids[:, None].float() * frequencies
        angles = torch.cat((angles, angles), -1)
        factor = self._rotary.attention_scaling
        cosine, sine = ((part * factor).to(hidden.dtype)[:, None] for part in (angles.cos(), angles.sin()))
        return cosine, sine[..., : sine.shape[-1] // 2].contiguous()
