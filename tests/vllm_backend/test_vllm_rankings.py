"""The right passage is first when vLLM computes the demo pair, through the core and every framework."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from frameworks import RANKINGS, VECTORS, core_ranking, core_vectors
from qwen3_rag import Embedder, Reranker, demo
from rankings import check_best, check_nearest

MODELS = Path(demo.__file__).parent / "models"
ON_VLLM: dict[str, Any] = {"backend": "vllm", "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def embedder_options() -> Iterator[dict[str, Any]]:
    options = {"model": str(MODELS / "demo-embedding"), **ON_VLLM}
    with Embedder(**options).load():  # one engine for all frameworks
        yield options


@pytest.fixture(scope="module")
def reranker_options() -> Iterator[dict[str, Any]]:
    options = {"model": str(MODELS / "demo-reranker"), **ON_VLLM}
    with Reranker(**options).load():
        yield options


@pytest.mark.parametrize("framework", ["core", *VECTORS])
def test_the_nearest_passage_is_the_right_one(embedder_options: dict[str, Any], framework: str) -> None:
    check_nearest({"core": core_vectors, **VECTORS}[framework], embedder_options)


@pytest.mark.parametrize("framework", ["core", *RANKINGS])
def test_the_best_passage_is_the_right_one(reranker_options: dict[str, Any], framework: str) -> None:
    check_best({"core": core_ranking, **RANKINGS}[framework], reranker_options)
