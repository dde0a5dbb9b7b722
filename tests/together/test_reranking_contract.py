"""Every backend that runs in this environment keeps the contract that authors of backends get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from qwen3_rag import Reranker
from qwen3_rag.testing.backend import RerankingBackendContract
from served import LOCAL, options


@pytest.fixture(scope="module", params=["transformers", "processes", "sentence-transformers", "remote"])
def component(request: pytest.FixtureRequest, reranking_checkpoint: Path) -> Iterator[Reranker]:
    with ExitStack() as stack:
        chosen = options(request.param, reranking_checkpoint, stack)
        yield stack.enter_context(Reranker(str(reranking_checkpoint), **chosen))


@pytest.fixture(scope="module")
def reference(reranking_checkpoint: Path) -> Iterator[Reranker]:
    with Reranker(str(reranking_checkpoint), share_prefixes=False, **LOCAL) as reference:
        yield reference


class TestReranking(RerankingBackendContract):
    pass
