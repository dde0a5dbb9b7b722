"""From token vectors to a Qwen3 checkpoint that embeds exactly as their mean does.

A few hidden dimensions are set apart:

- FILLER brings every token's vector to the same length, so that the norm before attention leaves the
  others as they are and a rare word keeps its greater weight;
- BIAS is the same for all tokens, for queries and keys that do not depend on the token;
- INSTRUCT and QUERY mark the words that open an instruction and close it;
- FLAG is written by the first layer into tokens that see the first mark and not the second.

The last layer's closing token then attends evenly to all tokens without the flag. So a query's instruction
starts without effect on its vector, whatever its wording. Training may go on from there, with every weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from qwen3_rag.prompts import END_OF_TEXT, query_prompt
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Config

RESERVED: Final = 8
"""Hidden dimensions, the last ones, that carry no meaning."""

FILLER, BIAS, INSTRUCT, QUERY, FLAG = (-1, -2, -3, -4, -5)
HEAD_DIM: Final = 64
_MARK: Final = 3.0
_STILL: Final = (31, 30)
"""Dimensions of a head that rotary embedding hardly turns within a few thousand positions."""

_SMALL: Final = 0.02

_EMPTY: Final = 0.05
"""All that the vector of an empty text is made of, so that it has a direction; others hardly change."""


def config(tokenizer: Tokenizer, *, hidden: int, layers: int, heads: int, intermediate: int) -> Qwen3Config:
    """Return the config of a demo checkpoint: two query heads of 64 share one of keys and values."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    made = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=HEAD_DIM,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    made.rope_theta = 1_000_000.0
    parameters: Any = getattr(made, "rope_parameters", None)  # where transformers 5 keeps it
    if parameters:
        parameters["rope_theta"] = 1_000_000.0
    return made


def set_token_vectors(model: Any, tokenizer: Tokenizer, vectors: NDArray[np.float32]) -> None:
    """Fill the embedding table from token vectors, shape (vocabulary, hidden - RESERVED), and the marks."""
    hidden = model.config.hidden_size
    longest = math.sqrt(hidden - 3 * _MARK**2)
    lengths = np.linalg.norm(vectors, axis=1)
    # The rare longest vectors are cut, so that the others can use the room.
    scale = longest / np.quantile(lengths, 0.999)
    shrink = scale * np.minimum(1.0, longest / np.maximum(scale * lengths, 1e-6))
    table = torch.zeros(len(vectors), hidden)
    table[:, : hidden - RESERVED] = torch.from_numpy(vectors * shrink[:, None])
    first, last = marks(tokenizer)
    end = tokenizer.token_to_id(END_OF_TEXT)
    table[[end, first, last]] = 0
    table[end, 0] = _EMPTY
    table[:, BIAS] = _MARK
    table[first, INSTRUCT] = _MARK
    table[last, QUERY] = _MARK
    table[:, FILLER] = (hidden - table.pow(2).sum(dim=1)).clamp(min=0).sqrt()
    model.embed_tokens.weight.copy_(table)


def marks(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the tokens that open and close the instruction in a query's prompt."""
    ids: Sequence[int] = tokenizer.encode(query_prompt("x"), add_special_tokens=False).ids
    tokens = tokenizer.encode(query_prompt("x"), add_special_tokens=False).tokens
    return ids[0], ids[len(tokens) - 1 - tokens[::-1].index("Query")]


@torch.no_grad()
def start_embedder(model: Any, tokenizer: Tokenizer, vectors: NDArray[np.float32], *, seed: int = 0) -> None:
    """Set a Qwen3Model's weights to embed as the mean of `vectors`, (vocabulary, hidden - RESERVED)."""
    torch.manual_seed(seed)
    set_token_vectors(model, tokenizer, vectors)
    for layer in model.layers:
        quieten(layer)
    flag_instruction(model.layers[0].self_attn)
    pool_evenly(model.layers[-1].self_attn)
    model.norm.weight.fill_(1.0)
    model.norm.weight[-RESERVED:] = 0.0


def quieten(layer: Any) -> None:
    """Make a layer add nothing yet, its inner weights being small and random."""
    for name, parameter in layer.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, _SMALL)
        elif "norm" in name:
            parameter.fill_(1.0)
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()


def flag_instruction(attention: Any) -> None:
    """Let the first head write FLAG into tokens after INSTRUCT and before QUERY."""
    one, two = _STILL
    _rows(attention.q_proj.weight, 0).zero_()
    _rows(attention.k_proj.weight, 0).zero_()
    _rows(attention.v_proj.weight, 0).zero_()
    attention.q_norm.weight.fill_(1.0)
    attention.q_proj.weight[one, BIAS] = 0.6
    attention.q_proj.weight[two, BIAS] = 1.0
    attention.k_proj.weight[one, INSTRUCT] = 1.0
    attention.k_proj.weight[two, QUERY] = 1.0
    attention.k_norm.weight[list(_STILL)] = 2.0
    attention.v_proj.weight[0, INSTRUCT] = 1.0 / _MARK
    attention.o_proj.weight[FLAG, 0] = 10.0


def pool_evenly(attention: Any) -> None:
    """Let all heads carry all dimensions to the closing token, from every token without FLAG."""
    width = attention.v_proj.weight.shape[0]
    hidden = attention.v_proj.weight.shape[1]
    groups = attention.q_proj.weight.shape[0] // width
    one, two = _STILL
    attention.v_proj.weight.zero_()
    meaning = min(width, hidden - RESERVED)
    attention.v_proj.weight[:meaning, :meaning] = torch.eye(meaning)
    for head in range(attention.q_proj.weight.shape[0] // HEAD_DIM):
        kv_head = head // groups
        query = _rows(attention.q_proj.weight, head)
        query.normal_(0.0, _SMALL / 10)
        query[one, BIAS] = -1.0
        columns = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        kept = min(HEAD_DIM, meaning - kv_head * HEAD_DIM)
        for i in range(kept):
            attention.o_proj.weight[kv_head * HEAD_DIM + i, columns.start + i] = _GAIN / groups
    for head in range(width // HEAD_DIM):
        key = _rows(attention.k_proj.weight, head)
        key.normal_(0.0, _SMALL / 10)
        key[one, FLAG] = 1.0
        key[two, BIAS] = 1.0
    attention.k_norm.weight[list(_STILL)] = 1.3


_GAIN: Final = 4.0


def _rows(weight: Tensor, head: int) -> Tensor:
    """Return the rows of one head, a view."""
    return weight[head * HEAD_DIM : (head + 1) * HEAD_DIM]
