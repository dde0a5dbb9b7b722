"""The right passage is first, whatever server computes the demo pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from dialects import EMBEDDERS, RERANKERS
from qwen3_rag import Embedder, Reranker, demo
from rankings import EMBEDDER, PASSAGES, QUESTIONS, RERANKER
from server import Answer, Server

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]

NAMES, TEXTS = list(PASSAGES), list(PASSAGES.values())
MODELS = Path(demo.__file__).parent / "models"


@pytest.fixture(scope="session")
def embedding_folder() -> Path:
    """What the remote backend reads: the pair's config and tokenizer."""
    return MODELS / "demo-embedding"


@pytest.fixture(scope="session")
def reranking_folder() -> Path:
    """Likewise."""
    return MODELS / "demo-reranker"


@pytest.fixture(scope="module")
def local_embedder() -> Iterator[Embedder]:
    with Embedder(**EMBEDDER) as component:
        yield component


@pytest.fixture(scope="module")
def local_reranker() -> Iterator[Reranker]:
    with Reranker(**RERANKER) as component:
        yield component


@pytest.mark.parametrize("name", list(EMBEDDERS))
def test_the_nearest_passage_is_the_right_one(
    name: str, local_embedder: Embedder, embedding_folder: Path, serve: Serve, embedder: Make
) -> None:
    compute, tokenizer = models.checkpoint(local_embedder), models.tokenizer_of(embedding_folder)
    remote = embedder(serve(EMBEDDERS[name](compute, tokenizer)).url, name)
    similarities = remote.embed_queries(list(QUESTIONS)) @ remote.embed_documents(TEXTS).T
    assert [NAMES[i] for i in np.argmax(similarities, axis=1)] == list(QUESTIONS.values())


@pytest.mark.parametrize("name", list(RERANKERS))
def test_the_best_passage_is_the_right_one(
    name: str, local_reranker: Reranker, reranking_folder: Path, serve: Serve, reranker: Make
) -> None:
    options, make = RERANKERS[name]
    compute, tokenizer = models.checkpoint(local_reranker), models.tokenizer_of(reranking_folder)
    remote = reranker(serve(make(compute, tokenizer)).url, **options)
    for question, right in QUESTIONS.items():
        assert NAMES[remote.rerank(question, TEXTS)[0].index] == right, question
