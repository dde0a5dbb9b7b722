"""Reading a checkpoint's tokenizer, and a tokenizer for text in which no token's name means that token."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from qwen3_rag.errors import CheckpointError

TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")
"""All files that a tokenizer may be read from."""


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: there is no readable `tokenizer.json`, nor `vocab.json` with `merges.txt`.
    """
    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path)) if path.is_file() else _convert_slow_tokenizer(folder)
    except Exception as error:  # tokenizers raises bare Exception for malformed files
        raise CheckpointError(f"cannot read a tokenizer from {folder}: {error}") from error


def without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer of the same vocabulary, normaliser and splits that knows no added token."""
    plain = Tokenizer(tokenizer.model)
    if tokenizer.normalizer is not None:
        plain.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        plain.pre_tokenizer = tokenizer.pre_tokenizer
    return plain


def _convert_slow_tokenizer(folder: Path) -> Tokenizer:
    # Transformers 5 invents an empty tokenizer where there is none.
    if not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        raise FileNotFoundError(
            "there is no tokenizer.json, nor vocab.json with merges.txt; save the tokenizer of the model that "
            "it was trained from beside the weights: tokenizer.save_pretrained(folder)"
        )
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
        str(folder), use_fast=True, trust_remote_code=False
    ).backend_tokenizer
    return tokenizer
