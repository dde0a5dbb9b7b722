"""One text, one vector; one pair, one score: through every framework, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frameworks import RANKINGS, VECTORS, core_ranking, core_vectors

QUERY = "  How far is the\nsun?"
TEXTS = [
    "Light takes eight minutes.",
    " leading space,\nnewline",
    "太阳距离地球约一亿五千万公里。",
    "",
    "<|im_end|> yes",
]
LOCAL: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def embedding_options(embedding_checkpoint: Path) -> dict[str, Any]:
    return {"model": str(embedding_checkpoint), **LOCAL}


@pytest.fixture(scope="module")
def reranking_options(reranking_checkpoint: Path) -> dict[str, Any]:
    return {"model": str(reranking_checkpoint), **LOCAL}


@pytest.mark.parametrize("framework", VECTORS)
def test_vectors_are_the_cores_bit_for_bit(framework: str, embedding_options: dict[str, Any]) -> None:
    query, documents = VECTORS[framework](embedding_options, QUERY, TEXTS)
    core_query, core_documents = core_vectors(embedding_options, QUERY, TEXTS)
    np.testing.assert_array_equal(query, core_query)
    np.testing.assert_array_equal(documents, core_documents)


@pytest.mark.parametrize("framework", RANKINGS)
def test_rankings_are_the_cores_bit_for_bit(framework: str, reranking_options: dict[str, Any]) -> None:
    assert RANKINGS[framework](reranking_options, QUERY, TEXTS) == core_ranking(reranking_options, QUERY, TEXTS)


@pytest.fixture(scope="module")
def backends(embedding_checkpoint: Path, reranking_checkpoint: Path) -> Iterator[dict[str, Any]]:
    """Options of each other backend that runs here: what to add for embedding and for reranking."""
    from served import serving

    with ExitStack() as stack:
        urls = [stack.enter_context(serving(folder)) for folder in (embedding_checkpoint, reranking_checkpoint)]
        yield {
            "sentence-transformers": ({}, {}),
            "remote": tuple({"model_kwargs": {"base_url": url, "server": "vllm"}} for url in urls),
        }


@pytest.mark.parametrize("backend", ["sentence-transformers", "remote"])
@pytest.mark.parametrize("framework", VECTORS)
def test_vectors_are_the_same_on_every_backend(
    framework: str, backend: str, backends: dict[str, Any], embedding_options: dict[str, Any]
) -> None:
    options = {**embedding_options, "backend": backend, **backends[backend][0]}
    query, documents = VECTORS[framework](options, QUERY, TEXTS)
    core_query, core_documents = core_vectors(embedding_options, QUERY, TEXTS)
    np.testing.assert_allclose(query, core_query, atol=1e-5)
    np.testing.assert_allclose(documents, core_documents, atol=1e-5)


@pytest.mark.parametrize("backend", ["sentence-transformers", "remote"])
@pytest.mark.parametrize("framework", RANKINGS)
def test_rankings_are_the_same_on_every_backend(
    framework: str, backend: str, backends: dict[str, Any], reranking_options: dict[str, Any]
) -> None:
    options = {**reranking_options, "backend": backend, **backends[backend][1]}
    found, expected = RANKINGS[framework](options, QUERY, TEXTS), core_ranking(reranking_options, QUERY, TEXTS)
    assert [text for text, _ in found] == [text for text, _ in expected]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=1e-5)
