"""Kernels that `torch.compile` makes of a layer's norms, rotary embedding and gate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.utils
from qwen3_rag import ConfigurationError, Embedder, Reranker

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
COMPILED: dict[str, Any] = {**OPTIONS, "model_kwargs": {"compile": True}}
TEXTS = ["gravity", "", "the capital of China is Beijing " * 3, "long " * 1200]


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_compiling_changes_no_vector_and_no_score(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    with (
        Embedder(str(embedding_checkpoint), **OPTIONS) as plain,
        Embedder(str(embedding_checkpoint), **COMPILED) as compiled,
    ):
        assert compiled.load().backend is not plain.load().backend
        np.testing.assert_allclose(
            compiled.embed_documents(TEXTS), plain.embed_documents(TEXTS), rtol=0, atol=1e-5
        )
        np.testing.assert_allclose(compiled.embed_queries(["a"]), plain.embed_queries(["a"]), rtol=0, atol=1e-5)
    with (
        Reranker(str(reranking_checkpoint), **OPTIONS) as plain_reranker,
        Reranker(str(reranking_checkpoint), **COMPILED) as compiled_reranker,
    ):
        scores = [each.score("gravity", TEXTS) for each in (plain_reranker, compiled_reranker)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-5)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_is_compiled_after_loading(
    dtype: str, embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    """Else the first call of all, or of some length, takes seconds."""
    compiled_graphs: Any = torch._dynamo.utils.counters["stats"]
    options = {**COMPILED, "dtype": dtype}
    with (
        Embedder(str(embedding_checkpoint), **options).load() as embedder,
        Reranker(str(reranking_checkpoint), **options).load() as reranker,
    ):
        before = compiled_graphs["unique_graphs"]
        assert before > 0
        embedder.embed_documents(TEXTS)
        embedder.embed_queries(["a"])
        for words in range(12):
            embedder.embed_documents(["word " * words])
        reranker.score("gravity", TEXTS)
        assert compiled_graphs["unique_graphs"] == before


PROGRAM = """
import sys
from qwen3_rag import Embedder
Embedder(sys.argv[1], dtype="float32", device="cpu", model_kwargs={"compile": True}).embed_queries(["a"])
"""


def test_without_a_compiler_the_error_says_what_to_do(embedding_checkpoint: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(embedding_checkpoint)],
        env={**os.environ, "CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ConfigurationError: compile=True needs what torch.compile needs, a C++ compiler" in done.stderr
    assert "leave compile out of model_kwargs" in done.stderr


def test_compile_is_true_or_false(embedding_checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="compile must be True or False, got 'max'"):
        Embedder(str(embedding_checkpoint), **OPTIONS, model_kwargs={"compile": "max"}).load()
