"""Where training of the demo reranker starts: token vectors, and attention set to compare texts.

Chance would take far more steps than a demo is worth to find out that a query is to be compared with a
document. So four layers start by doing that: the first marks which tokens are query and which are document;
in the second, document tokens look for themselves in the query, and the token that opens the document takes
up the query's mean; in the third, the closing token takes up the document's mean, tokens that are in the
query counting more; in the fourth it compares the two, which the norms of queries and keys make a cosine.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from qwen3_rag.prompts import NO, YES, rerank_head
from tokenizers import Tokenizer
from torch import Tensor

from training.transplant import HEAD_DIM, quieten

RESERVED: Final = 10
"""Hidden dimensions, the last ones, that carry no meaning."""

FILLER, BIAS, OPENS_QUERY, OPENS_DOCUMENT, IN_QUERY, IN_DOCUMENT, MATCH, SCORE, FIRST = range(-1, -10, -1)
_SCALE: Final = 0.1
_QUERY_GAIN: Final = 30.0
_DOCUMENT_GAIN: Final = 30.0
_COSINE_GAIN: Final = 3.0
_MARK: Final = 3.0
_FLAG: Final = 10.0
_STILL: Final = [*range(16, 30), *range(48, 62)]
"""28 dimensions of a head that rotary embedding turns little within some hundred positions."""

_ONE, _TWO, _THREE = 30, 31, 62
"""Dimensions that it hardly turns at all, for marks."""


@torch.no_grad()
def start_reranker(model: Any, tokenizer: Tokenizer, vectors: NDArray[np.float32], *, seed: int = 0) -> None:
    """Set the weights of a Qwen3ForCausalLM with four layers, 8 heads and hidden size 256.

    Args:
        model: changed in place.
        tokenizer: of the demo pair.
        vectors: of tokens, most telling dimensions first, shape (vocabulary, any).
        seed: of what is random.
    """
    torch.manual_seed(seed)
    decoder = model.model
    _set_table(decoder.embed_tokens.weight, tokenizer, vectors)
    for layer in decoder.layers:
        quieten(layer)
    marking, matching, pooling, comparing = (layer.self_attn for layer in decoder.layers)
    _mark_parts(marking)
    _look_for_itself(matching)
    _take_up_query(matching)
    _take_up_document(pooling)
    _compare(comparing)
    decoder.norm.weight.fill_(1.0)
    decoder.norm.weight[SCORE] = _SCALE


def _set_table(table: Tensor, tokenizer: Tokenizer, vectors: NDArray[np.float32]) -> None:
    hidden = table.shape[1]
    meaning = torch.from_numpy(vectors[:, : hidden - RESERVED].copy())
    lengths = meaning.norm(dim=1)
    longest = math.sqrt(hidden - 4 * _MARK**2)
    scale = longest / float(lengths.quantile(0.999))
    meaning *= (scale * (longest / (scale * lengths).clamp(min=1e-6)).clamp(max=1.0))[:, None]
    ids = tokenizer.encode(rerank_head("x", "y"), add_special_tokens=False)
    opens_query = ids.ids[ids.tokens.index("<Query")]
    opens_document = ids.ids[ids.tokens.index("<Document")]
    yes, no = tokenizer.token_to_id(YES), tokenizer.token_to_id(NO)
    special = [tokenizer.token_to_id(text) for text in ("<|im_start|>", "<|im_end|>", "<think>", "</think>")]
    meaning[[opens_query, opens_document, yes, no, *special]] = 0
    table.zero_()
    table[:, : hidden - RESERVED] = meaning
    table[:, BIAS] = _MARK
    table[opens_query, OPENS_QUERY] = _MARK
    table[opens_document, OPENS_DOCUMENT] = _MARK
    table[tokenizer.token_to_id("<|im_start|>"), FIRST] = _MARK
    table[yes, SCORE], table[no, SCORE] = 1.0, -1.0
    table[:, FILLER] = (hidden - table.pow(2).sum(dim=1)).clamp(min=0).sqrt()


def _mark_parts(attention: Any) -> None:
    query, key, value = _head(attention, 0, 0)
    for rows in (query, key, value):
        rows.zero_()
    query[_ONE, BIAS], query[_TWO, BIAS] = 0.6, 1.0
    key[_ONE, OPENS_QUERY] = key[_TWO, OPENS_DOCUMENT] = 1.0
    attention.k_norm.weight[[_ONE, _TWO]] = 2.0
    value[0, OPENS_QUERY] = value[1, OPENS_DOCUMENT] = 1 / _MARK
    attention.o_proj.weight[IN_QUERY, 0] = _FLAG
    attention.o_proj.weight[IN_DOCUMENT, 1] = _FLAG


def _look_for_itself(attention: Any) -> None:
    """Heads 0 to 3: each token attends to equal ones; the share that is in the query becomes MATCH."""
    width = attention.q_proj.weight.shape[1] - RESERVED
    attention.q_norm.weight.fill_(1.6)
    attention.k_norm.weight.fill_(1.6)
    for kv_head in (0, 1):
        directions = torch.randn(len(_STILL), width) / width**0.5
        for head in (2 * kv_head, 2 * kv_head + 1):
            query, key, value = _head(attention, head, kv_head)
            for rows in (query, key, value):
                rows.zero_()
            query[_STILL, :width] = key[_STILL, :width] = directions
            value[0, IN_QUERY] = 1.0
            attention.o_proj.weight[MATCH, head * HEAD_DIM] = 0.5


def _take_up_query(attention: Any) -> None:
    """Heads 4 to 7: the token that opens the document gets the query's mean; others attend to the first."""
    for kv_head in (2, 3):
        start = (kv_head - 2) * HEAD_DIM
        for head in (2 * kv_head, 2 * kv_head + 1):
            query, key, value = _head(attention, head, kv_head)
            for rows in (query, key, value):
                rows.zero_()
            query[_ONE, BIAS], query[_TWO, OPENS_DOCUMENT] = 0.2, 1.0
            key[_ONE, FIRST], key[_TWO, IN_QUERY], key[_THREE, BIAS] = 1.0, 1.0, 0.3
            value[:, start : start + HEAD_DIM] = torch.eye(HEAD_DIM)
            _write(attention, head, start, _QUERY_GAIN / 2)


def _take_up_document(attention: Any) -> None:
    """Heads 0 to 3: each token gets the mean of the document so far, matches counting more."""
    attention.k_norm.weight.fill_(1.3)
    for kv_head in (0, 1):
        start = kv_head * HEAD_DIM
        for head in (2 * kv_head, 2 * kv_head + 1):
            query, key, value = _head(attention, head, kv_head)
            for rows in (query, key, value):
                rows.zero_()
            query[_ONE, BIAS] = query[_TWO, BIAS] = 1.0
            key[_ONE, IN_DOCUMENT], key[_ONE, OPENS_DOCUMENT] = 1.0, -20.0
            key[_TWO, MATCH], key[_THREE, BIAS] = 1.5, 0.3
            value[:, start : start + HEAD_DIM] = torch.eye(HEAD_DIM)
            _write(attention, head, start, _DOCUMENT_GAIN / 2)


def _compare(attention: Any) -> None:
    """The closing token attends to the one that opens the document the more, the nearer their means are."""
    attention.q_norm.weight.fill_(_COSINE_GAIN**0.5)
    attention.k_norm.weight.fill_(_COSINE_GAIN**0.5)
    for kv_head in range(4):
        start = kv_head * len(_STILL)
        for head in (2 * kv_head, 2 * kv_head + 1):
            query, key, value = _head(attention, head, kv_head)
            for rows in (query, key, value):
                rows.zero_()
            for place, dimension in enumerate(_STILL):
                query[dimension, start + place] = key[dimension, start + place] = 1.0
            query[_ONE, BIAS] = query[_TWO, BIAS] = 10.0
            key[_ONE, OPENS_DOCUMENT], key[_TWO, FIRST] = 10.0, 1.0
            value[0, OPENS_DOCUMENT], value[0, FIRST] = 10.0, -1.0
            attention.o_proj.weight[SCORE, head * HEAD_DIM] = 4.0


def _head(attention: Any, head: int, kv_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of one head's query rows and of its key and value rows, each (HEAD_DIM, hidden)."""
    rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
    kv_rows = slice(kv_head * HEAD_DIM, (kv_head + 1) * HEAD_DIM)
    return attention.q_proj.weight[rows], attention.k_proj.weight[kv_rows], attention.v_proj.weight[kv_rows]


def _write(attention: Any, head: int, start: int, gain: float) -> None:
    for i in range(HEAD_DIM):
        attention.o_proj.weight[start + i, head * HEAD_DIM + i] = gain
