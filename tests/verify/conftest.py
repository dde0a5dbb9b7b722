"""Local models and servers of verification's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_model import Served
from faulty_server import running
from qwen3_rag.verification.subject import Subject
from subjects import subject_of


@pytest.fixture(scope="session")
def embedding(embedding_checkpoint: Path) -> Subject:
    return subject_of("embedding", embedding_checkpoint)


@pytest.fixture(scope="session")
def reranking(reranking_checkpoint: Path) -> Subject:
    return subject_of("reranking", reranking_checkpoint)


@pytest.fixture(scope="session")
def served_embedder(embedding_checkpoint: Path) -> Served:
    return Served(embedding_checkpoint)


@pytest.fixture(scope="session")
def served_reranker(reranking_checkpoint: Path) -> Served:
    return Served(reranking_checkpoint)


@pytest.fixture
def embedder(served_embedder: Served) -> Iterator[Served]:
    """An embedding server; no test leaves a fault in it."""
    yield served_embedder
    served_embedder.fault = ""
    served_embedder.form = lambda value, _: value
    served_embedder.listed = ["the-model"]
    served_embedder.failures = []
    served_embedder.retry_after = "0.01"
    served_embedder.broken = {}


@pytest.fixture
def url(embedder: Served) -> Iterator[str]:
    """Where it listens, as vLLM's server would."""
    with running(embedder, "vllm") as url:
        yield url


@pytest.fixture
def reranker(served_reranker: Served) -> Iterator[Served]:
    """Likewise a reranking server."""
    yield served_reranker
    served_reranker.fault = ""
    served_reranker.form = lambda value, _: value
