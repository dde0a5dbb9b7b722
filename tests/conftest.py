"""Checkpoints shared by all tests, made once per run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# Threads of one small model only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def embedding_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small embedding checkpoint in float32: published layout, random weights."""
    from checkpoints import Qwen3Model, genuine_tokenizer, make_checkpoint

    folder = tmp_path_factory.mktemp("small-qwen3-embedding")
    return make_checkpoint(folder, genuine_tokenizer(appends_end_of_text=True), architecture=Qwen3Model)


@pytest.fixture(scope="session")
def reranking_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small reranking checkpoint in float32 with a tied head."""
    from checkpoints import genuine_tokenizer, make_checkpoint

    folder = tmp_path_factory.mktemp("small-qwen3-reranker")
    return make_checkpoint(folder, genuine_tokenizer(appends_end_of_text=False), seed=1)
