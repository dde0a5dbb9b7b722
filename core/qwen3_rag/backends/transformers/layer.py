"""What a Qwen3 layer computes row by row: all but attention itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

from qwen3_rag.backends.transformers.elementwise import Elementwise, Norm, Rotation, blocks
from qwen3_rag.backends.transformers.linear import is_packed, recurring_count
from qwen3_rag.backends.transformers.products import PackedProduct, Product, product_of
from qwen3_rag.backends.transformers.workspace import Workspace

_CPU_ROWS: Final = 2048
_ROWS: Final = 16384
"""Rows that pass at once through what a layer computes row by row, which bounds its activations. On a CPU those
of a block should stay in the cache. On an Intel Xeon with AMX 48 texts took 0.87 s through four layers in
blocks of 512, and 0.81 s in blocks of 2,048 or 4,096; on an AMD EPYC 1,024 and 2,048 were 2 % faster than
512 and 4,096."""

Projections = tuple[Tensor, Tensor, Tensor]
"""Queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim); rotated."""


class Layer:
    """A layer of Hugging Face's, whose modules are looked up once: for a small batch that takes long.

    What it computes lies in a workspace, until something is computed there for another layer.

    Args:
        layer: Hugging Face's.
        elementwise: norms, rotary embedding and gate.

    Attributes:
        device: of its weights.
        scale: factor of attention's scores.
    """

    def __init__(self, layer: Any, elementwise: Elementwise) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.device: torch.device = next(layer.parameters()).device
        self.scale = float(attention.scaling)
        self._head_dim = int(attention.head_dim)
        self._query_width = attention.config.num_attention_heads * self._head_dim
        self._key_width = attention.config.num_key_value_heads * self._head_dim
        self._mlp_width = int(mlp.intermediate_size)
        self._input_norm, self._mlp_norm = map(Norm.of, (layer.input_layernorm, layer.post_attention_layernorm))
        products = [
            product_of(linear, self.device)
            for linear in (
                *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
                *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
            )
        ]
        query, key, self._value, self._output, self._gate, self._up, self._down = products
        self._query, self._key = (query, Norm.of(attention.q_norm)), (key, Norm.of(attention.k_norm))
        self._fills = is_packed(layer)
        self._elementwise = elementwise

    def projections(
        self,
        hidden: Tensor,
        rotation: Rotation,
        known: tuple[Tensor, Tensor] | None,
        workspace: Workspace,
        *,
        with_query: bool,
    ) -> Projections:
        """Return queries, keys and values of all rows, without `with_query` no queries.

        Args:
            hidden: the rows.
            rotation: theirs.
            known: keys and values of tokens before them, which come first in what is returned.
            workspace: for what is returned.
            with_query: False where they are computed by `queries`.
        """
        rows, before = hidden.shape[0], 0 if known is None else known[0].shape[0]
        all_keys, all_values = (
            workspace.take(name, (before + rows, self._key_width), hidden) for name in ("key", "value")
        )
        query = workspace.take("query", (rows if with_query else 0, self._query_width), hidden)
        keys, values = all_keys, all_values
        if known is not None:
            all_keys[:before], all_values[:before] = (part.flatten(1) for part in known)
            keys, values = all_keys[before:], all_values[before:]
        for block in _blocks(hidden, *rotation, keys, values, *([query] if with_query else [])):
            states, cosine, sine, key, value, *queries = block
            normed = self._normed(states, self._input_norm, workspace)
            _write(self._value, normed, value)
            self._rotated(self._key, normed, (cosine, sine), key, workspace)
            for own in queries:
                self._rotated(self._query, normed, (cosine, sine), own, workspace)
        return self._heads(query), self._heads(all_keys), self._heads(all_values)

    def queries(self, hidden: Tensor, rotation: Rotation, workspace: Workspace) -> Tensor:
        """Return queries of some rows."""
        query = workspace.take("query", (hidden.shape[0], self._query_width), hidden)
        normed = self._normed(hidden, self._input_norm, workspace)
        self._rotated(self._query, normed, rotation, query, workspace)
        return self._heads(query)

    def add_attention_and_mlp(self, hidden: Tensor, seen: Tensor, workspace: Workspace) -> None:
        """Add what attention saw, and then the MLP's output, to the residual stream, in place."""
        for states, seen_by_states in _blocks(hidden, seen.flatten(1)):
            self._output.add_to(states, seen_by_states)
            normed = self._normed(states, self._mlp_norm, workspace)
            self._down.add_to(states, self._gated(normed, workspace))

    def _gated(self, normed: Tensor, workspace: Workspace) -> Tensor:
        gate, up = self._gate, self._up
        if self._fills and isinstance(gate, PackedProduct) and isinstance(up, PackedProduct):
            return gate.gate(up, normed)
        shape = (normed.shape[0], self._mlp_width)
        gates = gate(normed, workspace.take("gates", shape, normed))
        values = up(normed, workspace.take("values", shape, normed))
        return self._elementwise.gate(gates, values)

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.view(rows.shape[0], rows.shape[1] // self._head_dim, self._head_dim)

    def _normed(self, states: Tensor, norm: Norm, workspace: Workspace) -> Tensor:
        """Return normed states, where rows are filled with rows of zeros behind them."""
        count, width = states.shape
        room = workspace.take("normed", (recurring_count(count) if self._fills else count, width), states)
        if room.shape[0] == count:
            return self._elementwise.norm(states, norm, room)
        room[count:] = 0.0
        self._elementwise.norm(states, norm, room[:count])  # on a CPU it is written there
        return room

    def _rotated(
        self,
        projection: tuple[Product, Norm],
        normed: Tensor,
        rotation: Rotation,
        out: Tensor,
        workspace: Workspace,
    ) -> None:
        product, norm = projection
        heads = product(normed, workspace.take("heads", out.shape, out))
        if self._fills:
            heads = heads[: out.shape[0]]
        self._elementwise.norm_and_rotate(self._heads(heads), norm, rotation, self._heads(out))


def _blocks(first: Tensor, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Cut tensors into as many rows as pass at once."""
    return blocks(_CPU_ROWS if first.device.type == "cpu" else _ROWS, first, *others)


def _write(product: Product, rows: Tensor, out: Tensor) -> None:
    found = product(rows, out)
    if found is not out:
        out.copy_(found[: out.shape[0]])
