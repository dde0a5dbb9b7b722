"""Damaged, absent and foreign tokenizers are refused, before a text is given wrong tokens."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from qwen3_rag import CheckpointError, Embedder, Reranker, demo

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def test_damaged_tokenizers_are_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "broken")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read a tokenizer"):
        Embedder(str(folder), **OPTIONS).load()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="cannot read a tokenizer"):
        Embedder(str(folder), **OPTIONS).load()


def test_a_folder_without_a_tokenizer_is_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    """Transformers would invent one without words, and each text would have the same vector."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(embedding_checkpoint / name, folder)
    with pytest.raises(CheckpointError, match=r"no tokenizer.json, nor vocab.json with merges.txt"):
        Embedder(str(folder), **OPTIONS).embed_documents(["a"])


def without_token(lost: str, model: str, folder: Path) -> Path:
    """A copy of one of the demo pair whose tokenizer lacks an added token."""
    shutil.copytree(Path(demo.__file__).parent / "models" / model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if one["content"] != lost]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("lost", ["<think>", "</think>", "<|im_start|>", "<|im_end|>"])
def test_a_reranker_whose_tokenizer_lost_a_control_token_is_refused(lost: str, tmp_path: Path) -> None:
    folder = without_token(lost, "demo-reranker", tmp_path / "model")
    with pytest.raises(CheckpointError, match=f"{re.escape(repr(lost))} as [0-9]+ tokens"):
        Reranker(str(folder), **OPTIONS).load()


def test_an_embedder_needs_no_token_of_the_rerank_template(tmp_path: Path) -> None:
    folder = without_token("<think>", "demo-embedding", tmp_path / "model")
    assert Embedder(str(folder), **OPTIONS).dimensions == Embedder("demo").dimensions
