"""The demo pair's tokenizer: Qwen's construction, 8,192 entries."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import END_OF_TEXT, NO, RERANK_PREFIX, YES, query_prompt, rerank_head
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from training.pairs import Pair

VOCABULARY: Final = 8192
_TEMPLATE_REPEATS: Final = 3_000
"""So that the words of the templates are one token each: every prompt carries them."""

_MOST_PAIRS: Final = 60_000

_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Source: pre_tokenizer of the published tokenizer.json."""

_SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_ADDED: Final = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
"""Source: added_tokens of the published tokenizer.json, in its order; these are not "special"."""

_REPEATS: Final = 100_000
"""How often the answers are counted in training: more than any word of a demo corpus."""


def train(pairs: Sequence[Pair], *, seed: int = 0) -> Tokenizer:
    """Train the tokenizer on a sample of the training pairs. It appends `<|endoftext|>`."""
    sample = random.Random(seed).sample(list(pairs), min(_MOST_PAIRS, len(pairs)))
    templates = [
        f"{RERANK_PREFIX}{rerank_head(DEFAULT_INSTRUCTION, '')}\n{query_prompt(DEFAULT_INSTRUCTION)}"
    ] * _TEMPLATE_REPEATS
    return train_tokenizer(
        [*(f"{pair.query}\n{pair.passage}" for pair in sample), *templates], vocabulary=VOCABULARY
    )


def train_tokenizer(texts: Sequence[str], *, vocabulary: int = 8192) -> Tokenizer:
    """Train a byte-level BPE tokenizer with Qwen's normaliser, split rule and added tokens.

    `yes` and `no` are one token each, as rerankers need. It appends `<|endoftext|>`.

    Args:
        texts: what to learn merges from.
        vocabulary: most entries, the 26 added tokens included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [(text, True) for text in _SPECIAL] + [(text, False) for text in _ADDED]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(added),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    answers = f"{YES}\n{NO}\n" * 100
    tokenizer.train_from_iterator([*texts, *[answers] * (_REPEATS // 100)], trainer)
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in added])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    )
    return tokenizer
