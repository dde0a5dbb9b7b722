"""Everything in a Qwen3 layer except attention itself, computed in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

from qwen3_rag.backends.transformers.elementwise import Elementwise, Norm, Rotation, blocks
from qwen3_rag.backends.transformers.matmul import Matmul, PackedMatmul, matmul_of
from qwen3_rag.backends.transformers.packed_linear import is_packed, padded_row_count
from qwen3_rag.backends.transformers.workspace import Workspace

_CPU_ROWS: Final = 2048
"""Rows of a block on a CPU, whose activations should stay in the cache. On an Intel Xeon with AMX 48 texts took
0.87 s through four layers in blocks of 512, and 0.81 s in blocks of 2,048 or 4,096; on an AMD EPYC 1,024 and
2,048 were 2 % faster than 512 and 4,096."""

_ROWS: Final = 16384
"""Rows of a block elsewhere, which bounds the memory of its activations. Chosen, not tuned."""

Projections = tuple[Tensor, Tensor, Tensor]
"""Queries (rows, heads, head_dim), keys and values (tokens, kv_heads, head_dim); rotary embedding applied to
queries and keys."""


class Layer:
    """Hugging Face's layer with its submodules resolved once, since look-ups dominate small batches.

    Queries, keys and values are in the workspace, and so are overwritten by the next layer that uses it.

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
        matmuls = [
            matmul_of(linear, self.device)
            for linear in (
                *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
                *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
            )
        ]
        query, key, self._value, self._output, self._gate, self._up, self._down = matmuls
        self._query, self._key = (query, Norm.of(attention.q_norm)), (key, Norm.of(attention.k_norm))
        self._pads_rows = is_packed(layer)
        self._elementwise = elementwise

    def projections(
        self,
        hidden: Tensor,
        rotation: Rotation,
        past: tuple[Tensor, Tensor] | None,
        workspace: Workspace,
        *,
        with_query: bool,
    ) -> Projections:
        """Return queries, keys and values of all rows.

        Args:
            hidden: shape (rows, hidden_size); the residual stream.
            rotation: of the rows.
            past: keys and values of the tokens before the rows, both (past_tokens, kv_heads, head_dim).
            workspace: memory for the result.
            with_query: False returns no queries, (0, heads, head_dim): `queries` computes them.

        Returns:
            Keys and values have past_tokens + rows tokens.
        """
        rows, before = hidden.shape[0], 0 if past is None else past[0].shape[0]
        all_keys, all_values = (
            workspace.take(name, (before + rows, self._key_width), hidden) for name in ("key", "value")
        )
        query = workspace.take("query", (rows if with_query else 0, self._query_width), hidden)
        keys, values = all_keys, all_values
        if past is not None:
            all_keys[:before], all_values[:before] = (part.flatten(1) for part in past)
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
        """Return the queries of some rows.

        Args:
            hidden: shape (rows, hidden_size); the residual stream.
            rotation: of the rows.
            workspace: memory for the result.

        Returns:
            Shape (rows, heads, head_dim), rotary embedding applied.
        """
        query = workspace.take("query", (hidden.shape[0], self._query_width), hidden)
        normed = self._normed(hidden, self._input_norm, workspace)
        self._rotated(self._query, normed, rotation, query, workspace)
        return self._heads(query)

    def add_attention_and_mlp(self, hidden: Tensor, attended: Tensor, workspace: Workspace) -> None:
        """Add attention's projected output, then the MLP's output, to the residual stream, in place.

        Args:
            hidden: shape (rows, hidden_size); the residual stream.
            attended: shape (rows, heads, head_dim); attention's output.
            workspace: memory for activations.
        """
        for states, attended_by_states in _blocks(hidden, attended.flatten(1)):
            self._output.add_to(states, attended_by_states)
            normed = self._normed(states, self._mlp_norm, workspace)
            self._down.add_to(states, self._gated(normed, workspace))

    def _gated(self, normed: Tensor, workspace: Workspace) -> Tensor:
        gate, up = self._gate, self._up
        if self._pads_rows and isinstance(gate, PackedMatmul) and isinstance(up, PackedMatmul):
            return gate.gate(up, normed)
        shape = (normed.shape[0], self._mlp_width)
        gates = gate(normed, workspace.take("gates", shape, normed))
        values = up(normed, workspace.take("values", shape, normed))
        return self._elementwise.gate(gates, values)

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.view(rows.shape[0], rows.shape[1] // self._head_dim, self._head_dim)

    def _normed(self, states: Tensor, norm: Norm, workspace: Workspace) -> Tensor:
        """Return normed states, for packed weights padded with rows of zeros."""
        count, width = states.shape
        out = workspace.take("normed", (padded_row_count(count) if self._pads_rows else count, width), states)
        if out.shape[0] == count:
            return self._elementwise.norm(states, norm, out)
        out[count:] = 0.0
        self._elementwise.norm(states, norm, out[:count])  # on a CPU always written there
        return out

    def _rotated(
        self,
        projection: tuple[Matmul, Norm],
        normed: Tensor,
        rotation: Rotation,
        out: Tensor,
        workspace: Workspace,
    ) -> None:
        matmul, norm = projection
        heads = matmul(normed, workspace.take("heads", out.shape, out))
        if self._pads_rows:
            heads = heads[: out.shape[0]]
        self._elementwise.norm_and_rotate(self._heads(heads), norm, rotation, self._heads(out))


def _blocks(first: Tensor, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Split tensors into the blocks of rows that are computed one after another."""
    return blocks(_CPU_ROWS if first.device.type == "cpu" else _ROWS, first, *others)


def _write(matmul: Matmul, rows: Tensor, out: Tensor) -> None:
    result = matmul(rows, out)
    if result is not out:
        out.copy_(result[: out.shape[0]])
