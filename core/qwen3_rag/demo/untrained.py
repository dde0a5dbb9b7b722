"""Checkpoints that nobody trained: the right layout, a moment to make, nothing learned.

`save_random_checkpoint` is noise, good for comparing two ways of computing the same thing.
`save_word_embedder` is set by hand so that its vectors mean something: texts that share rare
words get similar vectors.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import END_OF_TEXT, query_prompt

_HEAD_DIM: Final = 64
_WORD_WIDTH: Final = 512
"""Random directions of this many dimensions are nearly orthogonal: cosine 0 +- 0.04."""
_WORD_SCALE: Final = 0.01
"""Small beside the square root of the norm's epsilon of 1, so that the norm stays linear and a rare
word keeps its greater weight."""


def save_random_checkpoint(
    folder: Path, tokenizer: Tokenizer, *, causal: bool, layers: int = 2, hidden: int = 128, seed: int = 0
) -> Path:
    """Save a checkpoint of random weights, spread widely enough that outputs differ between texts.

    Args:
        folder: where to; it must exist.
        tokenizer: its vocabulary gives the model's size.
        causal: with a tied vocabulary head, as rerankers have; else without.
        layers, hidden: shape; two query heads share one key head.
        seed: of the weights.
    """
    config = _config(
        tokenizer, layers=layers, hidden=hidden, heads=hidden // 32, kv_heads=hidden // 64, head_dim=32
    )
    model = Qwen3ForCausalLM(config) if causal else Qwen3Model(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                deviation = 0.5 if "embed" in name else 2.0 / parameter.shape[-1] ** 0.5
                parameter.normal_(0.0, deviation, generator=generator)
    return _save(folder, model, tokenizer)


def save_word_embedder(folder: Path, tokenizer: Tokenizer, texts: Sequence[str], *, seed: int = 0) -> Path:
    """Save an embedding checkpoint whose vector is the mean of its words' random vectors.

    Every word has a random direction, longer the fewer of `texts` hold it; tokens that write one
    word (`Gzip`, ` gzip`, `.gzip`) share it, and tokens without a letter have none. Queries and
    keys of the one attention layer are zero, so attention is uniform and the closing token, itself
    zero, takes up the mean of all tokens; the MLP adds nothing. The default instruction's tokens
    are zero.

    Args:
        folder: where to; it must exist.
        tokenizer: as `save_random_checkpoint`.
        texts: counted to tell rare words from common ones.
        seed: of the random directions.
    """
    heads = _WORD_WIDTH // _HEAD_DIM
    config = _config(tokenizer, layers=1, hidden=_WORD_WIDTH, heads=heads, kv_heads=heads, head_dim=_HEAD_DIM)
    config.rms_norm_eps = 1.0
    config.intermediate_size = 16
    model: Any = Qwen3Model(config)
    with torch.no_grad():
        embeddings = model.embed_tokens.weight
        embeddings.copy_(_word_directions(tokenizer, texts, seed))
        embeddings[_ids(tokenizer, query_prompt(DEFAULT_INSTRUCTION))] = 0
        embeddings[tokenizer.token_to_id(END_OF_TEXT)] = 0
        layer = model.layers[0]
        layer.self_attn.q_proj.weight.zero_()
        layer.self_attn.v_proj.weight.copy_(torch.eye(_WORD_WIDTH))
        layer.self_attn.o_proj.weight.copy_(torch.eye(_WORD_WIDTH))
        layer.mlp.down_proj.weight.zero_()
    return _save(folder, model, tokenizer)


def _config(
    tokenizer: Tokenizer, *, layers: int, hidden: int, heads: int, kv_heads: int, head_dim: int
) -> Qwen3Config:
    end = tokenizer.token_to_id(END_OF_TEXT)
    return Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )


def _save(folder: Path, model: Any, tokenizer: Tokenizer) -> Path:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": END_OF_TEXT,
        "eos_token": "<|im_end|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _word_directions(tokenizer: Tokenizer, texts: Sequence[str], seed: int) -> torch.Tensor:
    """Return each token's vector, shape (vocabulary, _WORD_WIDTH)."""
    size = tokenizer.get_vocab_size()
    words = [_word(tokenizer.decode([token], skip_special_tokens=False)) for token in range(size)]
    holding: Counter[str] = Counter()
    for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
        holding.update({words[token] for token in encoding.ids})
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(numbers), _WORD_WIDTH, generator=generator) * _WORD_SCALE
    # The logarithm of how many texts there are for one that holds the word.
    rarity = torch.tensor([math.log((1 + len(texts)) / (1 + holding[word])) if word else 0.0 for word in words])
    return directions[[numbers[word] for word in words]] * rarity[:, None]


def _word(token: str) -> str:
    """Return a token's letters in lower case, without a plural's s."""
    letters = "".join(character for character in token.lower() if character.isalpha())
    return letters.removesuffix("s") if len(letters) > 3 else letters


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
