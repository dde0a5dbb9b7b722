"""Multiplications and additions of a Qwen3 decoder, exactly, from texts' true lengths.

Counted are the linear layers and causal attention (a token's scores with itself and those before it, and
their weighted sum of values). Norms, rotary embedding, softmax and gates are not: they are not matrix
products, so no time at the matmul rate is due to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qwen3_rag.models import PublishedModel


@dataclass(frozen=True)
class Work:
    """What a set of prompts needs, in operations.

    Attributes:
        layers: of the model.
        layer: a layer for all tokens of all prompts.
        shared_layer: a layer, with what prompts of a query have in common computed once.
        last_layer: the last layer, with keys and values of all tokens, the shared ones once, and everything
            else of the tokens that end a prompt: no result depends on more.
        tokens: of all prompts.
    """

    layers: int
    layer: float
    shared_layer: float
    last_layer: float
    tokens: int

    @property
    def full(self) -> float:
        """All layers for all tokens of all prompts."""
        return self.layers * self.layer

    @property
    def needed(self) -> float:
        """What the results depend on, each thing once."""
        return (self.layers - 1) * self.shared_layer + self.last_layer

    def factor_at(self, layers: int) -> float:
        """What a ratio to a program that computes all of it becomes with another number of layers.

        Few layers flatter whoever leaves most of the last one out.
        """
        return (self.needed / self.full) / (
            replace(self, layers=layers).needed / replace(self, layers=layers).full
        )


def embedding_work(model: PublishedModel, lengths: Sequence[int]) -> Work:
    """Work of prompts that share nothing."""
    layer = sum(_layer(model, 0, length) for length in lengths)
    last = sum(_last_layer(model, 0, length) for length in lengths)
    return Work(model.layers, layer, layer, last, sum(lengths))


def reranking_work(model: PublishedModel, prompts: Sequence[Sequence[int]]) -> Work:
    """Work of rerank prompts, given as token ids, those of a query together."""
    layer = shared_layer = last = 0.0
    before: Sequence[int] = ()
    for prompt in prompts:
        shared, length = _common(before, prompt), len(prompt)
        layer += _layer(model, 0, length)
        shared_layer += _layer(model, shared, length)
        last += _last_layer(model, shared, length)
        before = prompt
    return Work(model.layers, layer, shared_layer, last, sum(map(len, prompts)))


def layer_bytes(model: PublishedModel, element: int) -> int:
    """Bytes of all layers' matrices, which a lone query must read from memory."""
    return model.layers * element * _linear(model)


def _linear(model: PublishedModel) -> int:
    """Elements of a layer's matrices."""
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    return model.dimensions * (2 * query + 2 * key + 3 * model.intermediate)


def _layer(model: PublishedModel, start: int, stop: int) -> float:
    """Of the tokens from start to stop, with those before start known."""
    seen = (stop * (stop + 1) - start * (start + 1)) / 2
    return 2.0 * (stop - start) * _linear(model) + 4.0 * model.heads * model.head_dim * seen


def _last_layer(model: PublishedModel, start: int, stop: int) -> float:
    """Keys and values of all tokens, everything else of the last one."""
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    keys_and_values = 2 * model.dimensions * key
    rest = model.dimensions * (2 * query + 3 * model.intermediate)
    return 2.0 * (stop - start) * keys_and_values + 2.0 * rest + 4.0 * query * stop


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common prefix."""
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return place
    return min(len(first), len(second))
