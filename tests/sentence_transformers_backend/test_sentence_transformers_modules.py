"""Modules that the Transformers backend refuses: other pooling, dense layers, no normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qwen3_rag import CheckpointError, ConfigurationError, Embedder, Reranker
from saved_folders import HIDDEN, normalised, save_embedder
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling, Transformer

OPTIONS: dict[str, Any] = {"backend": "sentence-transformers", "dtype": "float32", "device": "cpu"}
TEXTS = ["The capital of China is Beijing.", "", "重力 " * 60, "def f(x): return x", "naïve 🙂"]


@pytest.mark.parametrize(
    ("modules", "size"),
    [
        ({"dense": 96, "normalize": False}, 96),
        ({"pooling": "cls"}, 64),
        ({"pooling": "weightedmean", "normalize": False}, 64),
        ({"pooling": ("lasttoken", "mean"), "dense": 40}, 40),
        ({"pooling": ("mean", "max")}, 128),
    ],
    ids=str,
)
def test_vectors_of_any_modules_equal_that_librarys(
    modules: dict[str, Any], size: int, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = save_embedder(embedding_checkpoint, tmp_path / "saved", **modules)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    embedder = Embedder(str(folder), **OPTIONS)
    assert embedder.dimensions == size
    ours = embedder.embed_documents(TEXTS)
    np.testing.assert_allclose(ours, normalised(theirs), atol=1e-5)
    np.testing.assert_allclose(
        embedder.embed_documents(TEXTS, dimensions=32), normalised(theirs[:, :32]), atol=1e-5
    )
    with pytest.raises(ConfigurationError, match=f"32 to {size}"):
        embedder.embed_documents(TEXTS, dimensions=size + 1)


def test_norms_are_applied_and_nothing_is_dropped(embedding_checkpoint: Path, tmp_path: Path) -> None:
    norm = LayerNorm(HIDDEN)
    torch.nn.init.normal_(norm.norm.weight)
    modules = [Transformer(str(embedding_checkpoint)), Pooling(HIDDEN, "lasttoken"), Dropout(0.5), norm]
    folder = tmp_path / "saved"
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    ours = Embedder(str(folder), **OPTIONS).embed_documents(TEXTS)
    np.testing.assert_allclose(ours, normalised(theirs), atol=1e-5)


def test_the_transformers_backend_names_this_one(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = save_embedder(embedding_checkpoint, tmp_path / "saved", dense=48)
    with pytest.raises(CheckpointError, match='use backend="sentence-transformers"'):
        Embedder(str(folder), device="cpu").load()
    Embedder(str(folder), **OPTIONS).load()


def test_saved_prompts_are_applied(embedding_checkpoint: Path, tmp_path: Path) -> None:
    prompts = {"query": "ask: ", "document": "passage: "}
    folder = save_embedder(embedding_checkpoint, tmp_path / "saved", dense=48, prompts=prompts)
    embedder, theirs = Embedder(str(folder), **OPTIONS), SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(embedder.embed_queries(TEXTS), theirs.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), theirs.encode_document(TEXTS), atol=1e-5)


@pytest.mark.parametrize("dense", [None, 48], ids=["plain", "dense layer"])
def test_bfloat16_reaches_every_module(dense: int | None, embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = embedding_checkpoint
    if dense is not None:
        folder = save_embedder(embedding_checkpoint, tmp_path / "saved", dense=dense)
    exact = Embedder(str(folder), **OPTIONS).embed_documents(TEXTS)
    rough = Embedder(str(folder), **{**OPTIONS, "dtype": "bfloat16"}).embed_documents(TEXTS)
    assert (exact * rough).sum(axis=1).min() > 0.99
    assert np.abs(exact - rough).max() > 1e-4


def test_bfloat16_reaches_a_reranker(reranking_checkpoint: Path) -> None:
    exact = Reranker(str(reranking_checkpoint), **OPTIONS).score("why?", TEXTS)
    rough = Reranker(str(reranking_checkpoint), **{**OPTIONS, "dtype": "bfloat16"}).score("why?", TEXTS)
    assert 1e-4 < np.abs(exact - rough).max() < 0.05
