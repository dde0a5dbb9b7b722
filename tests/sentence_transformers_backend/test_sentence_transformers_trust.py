"""Code beside a checkpoint is run, and pickled weights are read, only if that was asked for."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qwen3_rag import CheckpointError, Embedder, Reranker
from safetensors.torch import load_file
from saved_folders import modules_of, normalised, save_embedder, write_modules
from sentence_transformers import SentenceTransformer

OPTIONS: dict[str, Any] = {"backend": "sentence-transformers", "dtype": "float32", "device": "cpu"}
TEXTS = ["The capital of China is Beijing.", "gravity"]
STRANGERS = """
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

class Pooling(Pooling):
    pass

class Half(nn.Module):
    def forward(self, values):
        return values.clamp(min=0) / 2
"""


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that can be imported, and is of neither library."""
    (tmp_path / "strangers_code.py").write_text(STRANGERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "strangers_code"
    sys.modules.pop("strangers_code", None)


def check_trust_is_needed(folder: Path, strangers: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf'{message}.*"trust_remote_code": True'):
        Embedder(str(folder), **OPTIONS).load()
    assert strangers not in sys.modules
    trusting = Embedder(str(folder), **OPTIONS, model_kwargs={"trust_remote_code": True})
    theirs = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True).encode(TEXTS)
    np.testing.assert_allclose(trusting.embed_documents(TEXTS), normalised(theirs), atol=1e-5)


def test_a_strangers_module_is_not_imported_unless_trusted(
    strangers: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = save_embedder(embedding_checkpoint, tmp_path / "saved")
    transformer, pooling, *others = modules_of(folder)
    write_modules(folder, [transformer, pooling | {"type": f"{strangers}.Pooling"}, *others])
    check_trust_is_needed(folder, strangers, rf"needs the class {strangers}\.Pooling")


def test_a_strangers_activation_is_not_replaced_by_another(
    strangers: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = save_embedder(embedding_checkpoint, tmp_path / "saved", dense=48)
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"activation_function": f"{strangers}.Half"}))
    check_trust_is_needed(folder, strangers, rf"needs the class {strangers}\.Half")


def pickled(source: Path, folder: Path) -> Path:
    """Copy a checkpoint, with its weights as PyTorch's older format has them."""
    shutil.copytree(source, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("saved", [False, True], ids=["plain", "saved"])
def test_pickled_weights_are_not_loaded_unless_asked(
    saved: bool, published: Path, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    source = published if saved else embedding_checkpoint
    folder = str(pickled(source, tmp_path / "pickled"))
    with pytest.raises(CheckpointError, match="cannot load"):
        Embedder(folder, **OPTIONS).load()
    allowing = Embedder(folder, **OPTIONS, model_kwargs={"use_safetensors": False})
    right = Embedder(str(source), **OPTIONS).embed_documents(TEXTS)
    np.testing.assert_array_equal(allowing.embed_documents(TEXTS), right)


def test_a_rerankers_pickled_weights_are_not_loaded_unless_asked(
    reranking_checkpoint: Path, tmp_path: Path
) -> None:
    folder = str(pickled(reranking_checkpoint, tmp_path / "pickled"))
    with pytest.raises(CheckpointError, match="cannot load"):
        Reranker(folder, **OPTIONS).load()
    allowing = Reranker(folder, **OPTIONS, model_kwargs={"use_safetensors": False})
    right = Reranker(str(reranking_checkpoint), **OPTIONS).score("why?", TEXTS)
    np.testing.assert_array_equal(allowing.score("why?", TEXTS), right)
