"""The right passage is first through every framework on every backend that runs in this environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from frameworks import RANKINGS, VECTORS, core_ranking, core_vectors
from qwen3_rag import Embedder, Reranker, checkpoint
from rankings import check_best, check_nearest
from served import options

MODELS = Path(checkpoint.__file__).parent / "demo" / "models"
BACKENDS = ("transformers", "sentence-transformers", "remote")


@pytest.fixture(scope="module", params=BACKENDS)
def embedder_options(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        folder = MODELS / "demo-embedding"
        chosen = {"model": str(folder), **options(request.param, folder, stack)}
        stack.enter_context(Embedder(**chosen).load())  # loaded once for all frameworks
        yield chosen


@pytest.fixture(scope="module", params=BACKENDS)
def reranker_options(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        folder = MODELS / "demo-reranker"
        chosen = {"model": str(folder), **options(request.param, folder, stack)}
        stack.enter_context(Reranker(**chosen).load())
        yield chosen


@pytest.mark.parametrize("framework", ["core", *VECTORS])
def test_the_nearest_passage_is_the_right_one(embedder_options: dict[str, Any], framework: str) -> None:
    check_nearest({"core": core_vectors, **VECTORS}[framework], embedder_options)


@pytest.mark.parametrize("framework", ["core", *RANKINGS])
def test_the_best_passage_is_the_right_one(reranker_options: dict[str, Any], framework: str) -> None:
    check_best({"core": core_ranking, **RANKINGS}[framework], reranker_options)
