"""Every backend that runs in this environment keeps the contract that authors of backends get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from qwen3_rag import Embedder
from qwen3_rag.testing.backend import EmbeddingBackendContract
from served import LOCAL, options


@pytest.fixture(scope="module", params=["transformers", "processes", "sentence-transformers", "remote"])
def component(request: pytest.FixtureRequest, embedding_checkpoint: Path) -> Iterator[Embedder]:
    with ExitStack() as stack:
        chosen = options(request.param, embedding_checkpoint, stack)
        yield stack.enter_context(Embedder(str(embedding_checkpoint), **chosen))


@pytest.fixture(scope="module")
def reference(embedding_checkpoint: Path) -> Iterator[Embedder]:
    with Embedder(str(embedding_checkpoint), share_prefixes=False, **LOCAL) as reference:
        yield reference


class TestEmbedding(EmbeddingBackendContract):
    pass
