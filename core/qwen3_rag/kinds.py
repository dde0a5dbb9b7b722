"""What a checkpoint is for, when neither its name nor the user says so. Reads no weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.errors import WrongModelKindError
from qwen3_rag.models import ModelKind, kind_of_name
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import PromptTokenizer

_KINDS: Final[tuple[ModelKind, ...]] = ("embedding", "reranking")


def find_kind(settings: EngineSettings) -> ModelKind:
    """Find out what a checkpoint is for: from its name, its files, and whether its tokenizer ends texts.

    Args:
        settings: of either kind.

    Raises:
        CheckpointError: its files cannot be read.
        WrongModelKindError: its name says one kind and its files the other.
    """
    folders: dict[ModelKind, Path] = {}
    for kind in _KINDS:
        try:
            folders[kind] = open_checkpoint(replace(settings, kind=kind), weights=False).folder
        except WrongModelKindError:
            continue
    if not folders:
        raise WrongModelKindError(
            f"{settings.model} has the name of a Qwen3 {kind_of_name(settings.model)} model and the files of "
            "the other kind; name its folder after what it is"
        )
    if len(folders) == 1:
        return next(iter(folders))
    # Published embedding tokenizers append <|endoftext|>, those of rerankers nothing.
    from tokenizers import Tokenizer

    path = folders["embedding"] / "tokenizer.json"
    if not path.is_file():
        return "reranking"
    end = PromptTokenizer.from_folder(folders["embedding"]).end_of_text
    return "embedding" if Tokenizer.from_file(str(path)).encode("a").ids[-1] == end else "reranking"
