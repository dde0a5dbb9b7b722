"""How an embedder's closing token attends, on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import query_prompt
from qwen3_rag.tokenization import PromptTokenizer
from torch import Tensor

from training.pairs import Pair
from training.transplant import HEAD_DIM

_MAX_TOKENS: Final = 512


class Closing(NamedTuple):
    """The closing token's queries in an embedder's last layer, mean over texts: (heads, HEAD_DIM) each.

    Attributes:
        query: at the end of queries.
        passage: at the end of passages.
    """

    query: Tensor
    passage: Tensor


def closing_of(embedder: Any, tokenizer: PromptTokenizer, pairs: Sequence[Pair]) -> Closing:
    """Return the means over the texts of some pairs.

    Args:
        embedder: a Qwen3Model.
        tokenizer: the checkpoint's.
        pairs: their queries get the default instruction.
    """
    prompt = query_prompt(DEFAULT_INSTRUCTION)
    queries = tokenizer.encode_texts(
        [pair.query for pair in pairs], prompt=prompt, max_tokens=_MAX_TOKENS, is_query=True
    )
    passages = tokenizer.encode_texts(
        [pair.passage for pair in pairs], prompt="", max_tokens=_MAX_TOKENS, is_query=False
    )
    return Closing(_mean_query(embedder, queries.token_ids), _mean_query(embedder, passages.token_ids))


@torch.no_grad()
def _mean_query(embedder: Any, token_ids: Sequence[Any]) -> Tensor:
    ends: list[Tensor] = []
    hook = embedder.layers[-1].self_attn.q_proj.register_forward_hook(
        lambda _module, _inputs, result: ends.append(result[0, -1])
    )
    for ids in token_ids:
        embedder(input_ids=torch.as_tensor(ids)[None], use_cache=False)
    hook.remove()
    heads = torch.stack(ends).view(len(ends), -1, HEAD_DIM)
    mean: Tensor = (heads / heads.pow(2).mean(dim=-1, keepdim=True).sqrt()).mean(dim=0)
    return mean
