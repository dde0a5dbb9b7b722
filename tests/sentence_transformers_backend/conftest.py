"""Checkpoints with the demo pair's vocabulary, in place of those with the published one.

Reading the published vocabulary takes that library seconds, and nothing here depends on it.
"""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from checkpoints import make_checkpoint, small_tokenizer
from qwen3_rag import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import query_prompt
from saved_folders import RERANK_TEMPLATE, save_cross_encoder, save_embedder, with_chat_template
from transformers import AutoConfig, Qwen3ForSequenceClassification, Qwen3Model


@pytest.fixture(scope="session", autouse=True)
def _imported_objects_are_not_collected() -> None:
    """Closing a model collects garbage, which takes a third of a second among a million objects of modules."""
    gc.freeze()


@pytest.fixture(scope="session")
def embedding_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of random weights, whose tokenizer appends the closing token."""
    folder = tmp_path_factory.mktemp("embedding")
    return make_checkpoint(folder, small_tokenizer(appends_end_of_text=True), architecture=Qwen3Model)


@pytest.fixture(scope="session")
def reranking_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model of random weights, whose tokenizer appends nothing."""
    return make_checkpoint(
        tmp_path_factory.mktemp("reranking"), small_tokenizer(appends_end_of_text=False), seed=1
    )


@pytest.fixture(scope="session")
def converted_checkpoint(reranking_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker converted to sequence classification."""
    folder = tmp_path_factory.mktemp("converted")
    config = AutoConfig.from_pretrained(reranking_checkpoint, num_labels=1)
    model = Qwen3ForSequenceClassification.from_pretrained(reranking_checkpoint, config=config)
    model.score.weight.data.normal_(0.0, 0.1)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((reranking_checkpoint / name).read_bytes())
    return folder


@pytest.fixture(scope="session")
def published(embedding_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding checkpoint with the modules of the published repositories."""
    folder = tmp_path_factory.mktemp("published") / "model"
    return save_embedder(embedding_checkpoint, folder, prompts={"query": query_prompt(DEFAULT_INSTRUCTION)})


@pytest.fixture(scope="session")
def templated(reranking_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker saved by CrossEncoder, with a chat template that makes Qwen3's rerank prompt."""
    root = tmp_path_factory.mktemp("templated")
    source = with_chat_template(reranking_checkpoint, root / "source", RERANK_TEMPLATE)
    return save_cross_encoder(source, root / "saved")
