"""Where training of the demo reranker starts: it compares query and document as the demo embedder does.

Chance would take far more steps than a demo is worth to find out that a query is to be compared with a
document. So four layers are set to do that, out of an embedder's weights:

1. tokens are marked that are of the query, of the document, or after `</think>`;
2. the embedder's first layer, within query and document each; one head finds out which of the document's
   tokens are in the query;
3. the embedder's last layer: the last token takes up the query, and `</think>` the document, with the tokens
   counting more that are in the query;
4. the last token compares what it has with what `</think>` has. That stands at a known distance, so that the
   turn which rotary embedding gives it can be taken back, and the norms of queries and keys make it a cosine.

Values below are of trials: what is excluded by attention gets less than a hundredth, in the last layer of the
trained reranker between one and two, a tenth for one prompt in a hundred, and shares of the last layer change
in proportion to the cosine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch
from qwen3_rag.prompts import NO, RERANK_SUFFIX, YES, rerank_head
from tokenizers import Tokenizer
from torch import Tensor

from training.closing import Closing
from training.transplant import BIAS, FILLER, FLAG, HEAD_DIM, QUERY, quieten

OPENS_QUERY, OPENS_DOCUMENT = -3, -4
"""Hidden dimensions, the last ones, that carry no meaning. Tables mark tokens there, layers write to them."""

IN_QUERY, IN_DOCUMENT, MATCH, FIRST, SCORE, LAST, THOUGHT = range(-6, -13, -1)
RESERVED: Final = 12
COMPARED: Final = 244
"""Dimensions of meaning, which are compared: 61 in each of four heads, which need others for marks."""

_MARK: Final = 3.0
_WRITTEN: Final = 9.95
"""What the first layer writes for a mark: ten, times the share of attention that the mark's token gets."""

_STILL: Final = [*range(16, 30), *range(48, 62)]
"""28 dimensions of a head that rotary embedding turns little within some hundred positions."""

_A, _B, _C, _D = 31, 30, 62, 63
"""Dimensions that it hardly turns at all, for marks."""

_ROPE_BASE: Final = 1_000_000.0

_SINGLE: Final = ("</think>", "<|im_start|>", YES, NO, ":")
"""Texts of one token each."""


class _Tokens(NamedTuple):
    opens_query: int
    opens_document: int
    colon: int
    """Stands after both of them."""
    suffix: list[int]
    """What follows the document, from `<|im_end|>` on."""
    thought: int
    first: int
    yes: int
    no: int
    embedders_colon: int
    """Stands before a query in an embedder's prompt."""


@torch.no_grad()
def start_reranker(
    model: Any, tokenizer: Tokenizer, embedder: Mapping[str, Tensor], closing: Closing, *, seed: int = 0
) -> None:
    """Set the weights of a Qwen3ForCausalLM with four layers, 8 heads of 4 key heads and hidden size 256.

    Args:
        model: changed in place.
        tokenizer: of the demo pair.
        embedder: weights of a demo embedder, of the same sizes with two layers.
        closing: of that embedder.
        seed: of what is random.
    """
    torch.manual_seed(seed)
    tokens = _tokens(tokenizer)
    decoder = model.model
    for layer in decoder.layers:
        quieten(layer)
    decoder.embed_tokens.weight.copy_(_table(embedder["embed_tokens.weight"], tokens))
    _mark_parts(decoder.layers[0].self_attn)
    _take_over(decoder.layers[1], embedder, 0)
    _stay_within_parts(decoder.layers[1])
    _look_for_itself(decoder.layers[1].self_attn)
    _take_over(decoder.layers[2], embedder, 1)
    _take_up_parts(decoder.layers[2], decoder.embed_tokens.weight[tokens.first], closing)
    scale = embedder["norm.weight"][:-RESERVED]
    decoder.layers[3].input_layernorm.weight[:-RESERVED] = scale / scale.mean()
    _compare(decoder.layers[3].self_attn, tokens)
    decoder.norm.weight.fill_(1.0)
    # What the last layer writes is at most zero. LAST, always the same, lifts log-odds until P(yes) of 0.5 is
    # between right passages and wrong ones; both constants are of the trained demo reranker.
    decoder.norm.weight[SCORE], decoder.norm.weight[LAST] = 0.35, 46.0


def _tokens(tokenizer: Tokenizer) -> _Tokens:
    head = tokenizer.encode(rerank_head("x", "y"), add_special_tokens=False)
    query, document = head.tokens.index("<Query"), head.tokens.index("<Document")
    suffix = tokenizer.encode(RERANK_SUFFIX, add_special_tokens=False).ids
    opens = (head.ids[query], head.ids[document], head.ids[query + 1])
    single = [tokenizer.encode(text, add_special_tokens=False).ids[0] for text in _SINGLE]
    return _Tokens(*opens, suffix, *single)


def _table(embedder: Tensor, tokens: _Tokens) -> Tensor:
    hidden = embedder.shape[1]
    table = embedder.clone()
    table[:, -RESERVED:] = 0
    without = {*tokens.suffix, tokens.opens_query, tokens.opens_document, tokens.yes, tokens.no}
    table[sorted(without)] = 0
    table[tokens.colon] = table[tokens.embedders_colon]
    table[:, BIAS] = _MARK
    table[tokens.opens_query, OPENS_QUERY] = _MARK
    table[tokens.opens_document, OPENS_DOCUMENT] = _MARK
    table[tokens.thought, THOUGHT] = _MARK
    table[tokens.first, FIRST] = _MARK
    table[tokens.yes, SCORE], table[tokens.no, SCORE] = 1.0, -1.0
    table[tokens.yes, LAST], table[tokens.no, LAST] = 0.05, -0.05
    table[:, FILLER] = (hidden - table.pow(2).sum(dim=1)).clamp(min=0).sqrt()
    # What layers add to it hardly changes its length, which the last layer's scores are divided by.
    table[tokens.first] *= 10
    return table


def _mark_parts(attention: Any) -> None:
    """Head 0 writes IN_QUERY after what opens the query, IN_DOCUMENT after what opens the document; 1 LAST."""
    query, key, value = _empty(attention, 0, 0)
    other, _, _ = _empty(attention, 1, 0)
    query[_B, BIAS], query[_A, BIAS] = 0.6, 1.0
    other[_C, BIAS] = 1.0
    key[_B, OPENS_QUERY] = key[_A, OPENS_DOCUMENT] = key[_C, THOUGHT] = 1.0
    attention.k_norm.weight[[_A, _B, _C]] = 2.0
    value[0, OPENS_QUERY] = value[1, OPENS_DOCUMENT] = value[2, THOUGHT] = 1 / _MARK
    attention.o_proj.weight[IN_QUERY, 0] = attention.o_proj.weight[IN_DOCUMENT, 1] = 10.0
    attention.o_proj.weight[LAST, HEAD_DIM + 2] = 10.0


def _take_over(layer: Any, embedder: Mapping[str, Tensor], number: int) -> None:
    """Copy an embedder's attention as far as it reads and writes meaning, BIAS, FILLER and FLAG."""
    attention, prefix = layer.self_attn, f"layers.{number}."
    shared = [BIAS, FILLER, FLAG]
    norm = embedder[prefix + "input_layernorm.weight"]
    layer.input_layernorm.weight[:-RESERVED] = norm[:-RESERVED]
    layer.input_layernorm.weight[shared] = norm[shared]
    for name in ("q_proj", "k_proj", "v_proj"):
        old, new = embedder[f"{prefix}self_attn.{name}.weight"], getattr(attention, name).weight
        new.zero_()
        new[:, :-RESERVED] = old[:, :-RESERVED]
        new[:, shared] = old[:, shared]
        if number == 0:
            new[:, OPENS_QUERY] = old[:, QUERY]
    old = embedder[prefix + "self_attn.o_proj.weight"]
    attention.o_proj.weight.zero_()
    attention.o_proj.weight[:-RESERVED] = old[:-RESERVED]
    attention.o_proj.weight[FLAG] = old[FLAG]
    for name in ("q_norm", "k_norm"):
        getattr(attention, name).weight.copy_(embedder[f"{prefix}self_attn.{name}.weight"])


def _stay_within_parts(layer: Any) -> None:
    """Heads 2 to 7: tokens of the query see the query alone, tokens of the document the document."""
    attention = layer.self_attn
    balance = _MARK / _WRITTEN * float(layer.input_layernorm.weight[BIAS])
    # The dimensions for marks make the others smaller, which is taken back.
    attention.q_norm.weight.mul_(1.2)
    attention.k_norm.weight.mul_(1.2)
    attention.q_norm.weight[[_A, _B]] = 1.0
    attention.k_norm.weight[[_A, _B]] = 6.0
    for head in range(2, 8):
        query, key, _ = _head(attention, head, head // 2)
        query[[_A, _B, _C, _D]] = key[[_A, _B, _C, _D]] = 0
        for dimension, inside in ((_A, IN_DOCUMENT), (_B, IN_QUERY)):
            key[dimension, BIAS], key[dimension, inside] = 0.3, -0.3 * balance
            query[dimension, inside] = -0.15


def _look_for_itself(attention: Any) -> None:
    """Head 0: each token attends to equal ones; the share that is in the query becomes MATCH."""
    query, key, value = _empty(attention, 0, 0)
    _empty(attention, 1, 0)
    attention.o_proj.weight[:, : 2 * HEAD_DIM] = 0
    width = query.shape[1] - RESERVED
    query[_STILL, :width] = key[_STILL, :width] = torch.randn(len(_STILL), width) / width**0.5
    value[0, IN_QUERY] = 1.0
    attention.o_proj.weight[MATCH, 0] = 1.0


def _take_up_parts(layer: Any, first: Tensor, closing: Closing) -> None:
    """Let two tokens attend as an embedder's closing one, to one part each, and all others to the first."""
    attention, norm = layer.self_attn, layer.input_layernorm.weight
    bias = float(norm[BIAS])
    key = attention.k_proj.weight.view(-1, HEAD_DIM, norm.shape[0])
    key[:, [_B, _C, _D]] = 0
    key[:, _A, BIAS] += 1.0
    key[:, _B, BIAS] = 1.0
    key[:, _A, IN_DOCUMENT] = key[:, _B, IN_QUERY] = -bias * _MARK / _WRITTEN
    key[:, [_A, _B], FIRST] = 10.0
    key[:, _C, FIRST] = 20.0
    key[:, _D, MATCH], key[:, _D, IN_QUERY] = 0.15, -0.15  # the query's tokens find themselves
    attention.k_norm.weight[[_A, _B]] *= 1.6
    attention.k_norm.weight[_D] = 1.2
    # Who attends to the first token takes up nothing.
    attention.v_proj.weight[:, FIRST] -= (attention.v_proj.weight @ (first * norm)) / (first * norm)[FIRST]
    attention.o_proj.weight[:-RESERVED] *= 16.0  # outweighs the token's own vector
    query = torch.zeros(len(closing.passage), HEAD_DIM, norm.shape[0])
    # Sizes matter only against that of _C: the norm of queries takes away what they have in common.
    query[:, :_C, THOUGHT] = 15 * closing.passage[:, :_C]
    query[:, :_C, LAST] = 3 * closing.query[:, :_C]
    query[:, _B, THOUGHT] = 0
    query[:, _B, LAST], query[:, _A, LAST] = query[:, _A, LAST], torch.zeros(len(query))
    query[:, _D, THOUGHT] = 2 * query[:, _A, THOUGHT].abs()
    query[:, _C, BIAS], query[:, _C, THOUGHT] = 5.0, -5.0 * bias
    query[:, _C, LAST] = -5.0 * bias * _MARK / _WRITTEN
    attention.q_proj.weight.copy_(query.flatten(0, 1))


def _compare(attention: Any, tokens: _Tokens) -> None:
    """In four heads the last token attends to `</think>`, the more the nearer what they took up is.

    The rest of attention goes to `<|im_start|>`, whose share is what they write.
    """
    attention.q_norm.weight.fill_(1.0)
    # Small, and with as much for `<|im_start|>`: shares around a half are about linear in the cosine.
    attention.k_norm.weight.fill_(0.6)
    attention.q_norm.weight[[_A, _D]] = 1.41
    attention.k_norm.weight[_A] = 2.4
    attention.k_norm.weight[_D] = 0.42
    places = [place for place in range(HEAD_DIM) if place not in (_A, _D)][: COMPARED // 4]
    directions = torch.linalg.qr(torch.randn(COMPARED, COMPARED)).Q.view(4, len(places), COMPARED)
    distance = tokens.suffix[::-1].index(tokens.thought)
    for kv_head in range(4):
        head = 2 * kv_head + 1
        query, key, value = _empty(attention, head, kv_head)
        key[places, :COMPARED] = directions[kv_head]
        query.copy_(_turned(key, distance))
        query[[_A, _D], LAST] = 1.0
        # Of other tokens only `<|im_start|>` has a share. Larger weights would shut others out no better, and
        # what bfloat16 leaves of two marks that cancel would disturb the cosine.
        key[_A, BIAS], key[_A, [THOUGHT, FIRST]] = -10.0, 10.0
        key[_D, FIRST] = 40.0
        value[0, FIRST] = 1 / _MARK
        attention.o_proj.weight[SCORE, head * HEAD_DIM] = -32.0


def _turned(rows: Tensor, distance: int) -> Tensor:
    """Return rows of queries that are turned, by rotary embedding, to where keys of `rows` are turned before.

    Args:
        rows: of one head, shape (HEAD_DIM, hidden).
        distance: how many tokens before.
    """
    half = HEAD_DIM // 2
    angles = distance * _ROPE_BASE ** (-torch.arange(half) / half)
    cosine, sine = torch.cos(angles)[:, None], torch.sin(angles)[:, None]
    return torch.cat([rows[:half] * cosine + rows[half:] * sine, rows[half:] * cosine - rows[:half] * sine])


def _head(attention: Any, head: int, kv_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of one head's query rows and of its key and value rows, each (HEAD_DIM, hidden)."""
    rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
    kv_rows = slice(kv_head * HEAD_DIM, (kv_head + 1) * HEAD_DIM)
    return attention.q_proj.weight[rows], attention.k_proj.weight[kv_rows], attention.v_proj.weight[kv_rows]


def _empty(attention: Any, head: int, kv_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return `_head`, set to zero."""
    rows = _head(attention, head, kv_head)
    for part in rows:
        part.zero_()
    return rows
