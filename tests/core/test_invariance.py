"""A text's result does not depend on its company, its place, the batch size or prefix sharing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen3_rag import Embedder, Reranker

CORPUS = [f"Passage {i} on the {w}. " * (1 + i % 7) for i, w in enumerate(["sun", "moon", "sea"] * 8)]
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def reranker(folder: Path, token_budget: int | None = None, share_prefixes: bool = True) -> Reranker:
    options: dict[str, Any] = {"token_budget": token_budget, "share_prefixes": share_prefixes}
    return Reranker(str(folder), dtype="float32", device="cpu", **options)


@cache
def embedder(folder: Path, token_budget: int | None = None) -> Embedder:
    return Embedder(str(folder), dtype="float32", device="cpu", token_budget=token_budget)


@pytest.fixture(scope="module")
def alone(reranking_checkpoint: Path, embedding_checkpoint: Path) -> tuple[np.ndarray, np.ndarray]:
    """Each text's score and vector when it is the only one of its call."""
    scorer = reranker(reranking_checkpoint)
    embed = embedder(embedding_checkpoint).embed_documents
    scores = [scorer.score("what shines?", [text])[0] for text in CORPUS]
    vectors = [embed([text])[0] for text in CORPUS]
    return np.array(scores), np.array(vectors)


@few
@given(st.permutations(range(len(CORPUS))), st.integers(1, len(CORPUS)), st.sampled_from([1, 90, 700, 50_000]))
def test_batching_never_changes_results(
    reranking_checkpoint: Path,
    embedding_checkpoint: Path,
    alone: tuple[np.ndarray, np.ndarray],
    order: list[int],
    count: int,
    token_budget: int,
) -> None:
    chosen = order[:count]
    given_texts = [CORPUS[i] for i in chosen]
    scores = reranker(reranking_checkpoint, token_budget).score("what shines?", given_texts)
    np.testing.assert_allclose(scores, alone[0][chosen], atol=1e-5)
    vectors = embedder(embedding_checkpoint, token_budget).embed_documents(given_texts)
    np.testing.assert_allclose(vectors, alone[1][chosen], atol=1e-5)


def test_sharing_prefixes_changes_the_work_but_no_score(reranking_checkpoint: Path) -> None:
    pairs = [(query, text) for query in ("what shines?", "what shines in the night?") for text in CORPUS]
    with (
        reranker(reranking_checkpoint) as shared,
        reranker(reranking_checkpoint, share_prefixes=False) as apart,
    ):
        ours, theirs = shared.evaluate(pairs), apart.evaluate(pairs)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    assert theirs.usage.reused_tokens == 0
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
    assert ours.usage.computed_tokens < 0.7 * theirs.usage.computed_tokens


def test_order_and_duplicates_are_kept(embedding_checkpoint: Path) -> None:
    vectors = embedder(embedding_checkpoint).embed_documents([*CORPUS, *CORPUS[::-1]])
    np.testing.assert_array_equal(vectors[: len(CORPUS)], vectors[len(CORPUS) :][::-1])


def test_calls_longer_than_a_chunk_keep_their_order(embedding_checkpoint: Path) -> None:
    numbered = [f"text {i}" for i in range(1200)]
    result = embedder(embedding_checkpoint).embed(numbered, role="document")
    some = [0, 511, 512, 1199]
    again = embedder(embedding_checkpoint).embed_documents([numbered[i] for i in some])
    np.testing.assert_allclose(result.vectors[some], again, atol=1e-5)
    assert result.usage.texts == 1200
