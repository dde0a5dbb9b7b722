"""On a CPU beginnings are kept from call to call: queries one by one compute their instruction twice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.transformers.backend import TransformersBackend
from qwen3_rag.backends.transformers.beginnings import MOST_KEPT, MOST_TOKENS, Beginning, Beginnings
from qwen3_rag.plan import PackedBatch, plan_batches
from qwen3_rag.prompts import EmbeddingWords
from qwen3_rag.tokenization import Prompt

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
QUERIES = ["gravity", "What is the capital of China?", "", "gravity", "why do stars shine", ":) 北京"]
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def embedder_of(folder: Path, share_prefixes: bool) -> Embedder:
    return Embedder(str(folder), share_prefixes=share_prefixes, **OPTIONS)


def backend_of(embedder: Embedder) -> TransformersBackend:
    backend = embedder.load().backend
    assert isinstance(backend, TransformersBackend)
    return backend


def run(backend: TransformersBackend, sequences: list[list[int]]) -> BackendOutput:
    words = EmbeddingWords("", "", is_query=False)
    return backend.run([Prompt(np.array(ids, dtype=np.int32), words) for ids in sequences])


def batch_of(*sequences: list[int]) -> PackedBatch:
    (batch,) = plan_batches([np.array(ids, dtype=np.int32) for ids in sequences], token_budget=1 << 20)
    return batch


def computed(beginnings: Beginnings, *sequences: list[int]) -> int:
    """Do what a backend does with a batch; returns how many tokens it computes."""
    batch = batch_of(*sequences)
    known = beginnings.find(batch)
    kept = beginnings.to_keep(batch, known)
    if kept is not None:
        kept.add_layer(*(torch.from_numpy(batch.token_ids)[:, None, None].float() for _ in "kv"))
    beginnings.remember(batch, kept)
    if known is not None:
        assert known.layers[0][0].flatten().tolist() == known.token_ids.tolist()
    return len(batch.token_ids) - (0 if known is None else len(known))


def one_by_one(embedder: Embedder) -> Iterator[tuple[Any, int]]:
    for query in QUERIES:
        result = embedder.embed([query], role="query")
        yield result.vectors[0], result.usage.computed_tokens


def test_queries_one_by_one_compute_their_instruction_twice(embedding_checkpoint: Path) -> None:
    with (
        Embedder(str(embedding_checkpoint), token_budget=779, **OPTIONS) as embedder,
        Embedder(str(embedding_checkpoint), share_prefixes=False, **OPTIONS) as apart,
    ):
        ours, theirs = list(one_by_one(embedder)), list(one_by_one(apart))
    np.testing.assert_allclose([v for v, _ in ours], [v for v, _ in theirs], rtol=0, atol=1e-5)
    shares = [mine / full for (_, mine), (_, full) in zip(ours, theirs, strict=True)]
    assert shares[:2] == [1, 1]
    assert max(shares[2:]) < 0.5


def test_small_rankings_compute_template_and_instruction_twice(reranking_checkpoint: Path) -> None:
    def scores(reranker: Reranker) -> Iterator[tuple[list[float], int]]:
        for query in QUERIES:
            result = reranker.evaluate([(query, "Stars shine."), (query, "Beijing is a capital.")])
            yield list(result.scores), result.usage.computed_tokens

    with (
        Reranker(str(reranking_checkpoint), **OPTIONS) as reranker,
        Reranker(str(reranking_checkpoint), share_prefixes=False, **OPTIONS) as apart,
    ):
        ours, theirs = list(scores(reranker)), list(scores(apart))
    np.testing.assert_allclose([s for s, _ in ours], [s for s, _ in theirs], rtol=0, atol=1e-5)
    assert max(count for _, count in ours[2:]) < 0.6 * ours[0][1]


TREE = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=5)
"""Calls of paths: calls begin alike where their paths do."""


@many
@given(TREE, st.data())
def test_calls_in_any_order_give_what_each_gives_alone(
    embedding_checkpoint: Path, calls: list[list[int]], data: st.DataObject
) -> None:
    kept, alone = (backend_of(embedder_of(embedding_checkpoint, share)) for share in (True, False))
    for path in calls:
        common = [token for step in path for token in range(100 * step, 100 * step + 11)]
        endings = data.draw(st.lists(st.lists(st.integers(5, 30), max_size=20), min_size=1, max_size=4))
        sequences = [common + ending for ending in endings]
        ours, theirs = run(kept, sequences), run(alone, sequences)
        np.testing.assert_allclose(
            ours.values / np.linalg.norm(ours.values, axis=1, keepdims=True),
            theirs.values / np.linalg.norm(theirs.values, axis=1, keepdims=True),
            rtol=0,
            atol=1e-5,
        )
        assert ours.computed.min() >= 0
        assert 1 <= ours.computed.sum() <= theirs.computed.sum()


def test_bfloat16_stays_the_same_to_rounding(embedding_checkpoint: Path) -> None:
    options: dict[str, Any] = {"dtype": "bfloat16", "device": "cpu"}
    with (
        Embedder(str(embedding_checkpoint), **options) as embedder,
        Embedder(str(embedding_checkpoint), share_prefixes=False, **options) as apart,
    ):
        ours = np.array([vector for vector, _ in one_by_one(embedder)])
        theirs = np.array([vector for vector, _ in one_by_one(apart)])
    assert (ours * theirs).sum(1).min() > 0.999


INSTRUCTION = list(range(1000, 1018))


def test_the_same_prompt_again_computes_its_last_token() -> None:
    beginnings = Beginnings()
    assert [computed(beginnings, [*INSTRUCTION, 1, 2]) for _ in range(4)] == [20, 20, 1, 1]


def test_other_calls_in_between_do_not_matter() -> None:
    beginnings = Beginnings()
    documents = [[i] * 30 for i in range(3, 9)]
    for query in (1, 2):
        computed(beginnings, [*INSTRUCTION, query])
        for document in documents[:3]:
            assert computed(beginnings, document) == 30
    assert computed(beginnings, [*INSTRUCTION, 7]) == 1
    assert computed(beginnings, *documents) == 180


def test_a_part_of_what_is_kept_is_used() -> None:
    beginnings = Beginnings()
    for ending in (1, 2):
        computed(beginnings, [*INSTRUCTION, *range(20), ending])
    assert computed(beginnings, [*INSTRUCTION, 77, 78]) == 2
    assert computed(beginnings, [*INSTRUCTION[:7], 77, 78]) == 9, "fewer tokens than are worth it"


def test_batches_that_would_gain_little_are_left_alone() -> None:
    beginnings = Beginnings()
    long = [[*INSTRUCTION, *range(200 * i, 200 * i + 150)] for i in (1, 2, 3)]
    assert [computed(beginnings, sequence) for sequence in long] == [168, 168, 168]
    assert not beginnings._kept
    seen = list(beginnings._seen)
    assert computed(beginnings, [1] * 20, [2] * 20) == 40
    assert list(beginnings._seen) == seen, "they have nothing in common"


def test_what_is_kept_is_bounded() -> None:
    beginnings = Beginnings()
    for start in range(0, 40_000, 2_000):
        for ending in (1, 2):
            computed(beginnings, [*range(start, start + 1_000), ending])
    assert len(beginnings._kept) == len(beginnings._seen) == MOST_KEPT
    assert {len(kept) for kept in beginnings._kept} == {MOST_TOKENS}
    assert all(
        key.untyped_storage().nbytes() == MOST_TOKENS * 4 for k in beginnings._kept for key, _ in k.layers
    )


def test_the_least_recently_used_goes_first() -> None:
    beginnings = Beginnings()
    for start in range(1, 1 + MOST_KEPT):
        for ending in (1, 2):
            computed(beginnings, [start] * 20 + [ending])
    assert computed(beginnings, [1] * 20 + [7]) == 1
    for ending in (1, 2):
        computed(beginnings, [99] * 20 + [ending])
    assert computed(beginnings, [1] * 20 + [8]) == 1
    assert computed(beginnings, [2] * 20 + [8]) == 21


def test_a_longer_beginning_takes_the_place_of_its_own_first_part() -> None:
    beginnings = Beginnings()
    for ending in ([1], [2], [*range(50), 1], [*range(50), 2]):
        computed(beginnings, [*INSTRUCTION, *ending])
    assert [len(kept) for kept in beginnings._kept] == [len(INSTRUCTION) + 50]


def test_batches_that_did_not_fit_leave_nothing(
    embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Embedder(str(embedding_checkpoint), token_budget=778, **OPTIONS) as embedder:
        backend: Any = embedder.load().backend
        forward, failing = backend._forward, [True]

        def fails_at_first(batch: PackedBatch, known: Beginning | None, kept: Beginning | None) -> Any:
            if failing:
                failing.pop()
                forward(batch, known, kept)
                raise torch.OutOfMemoryError("constructed")
            return forward(batch, known, kept)

        embedder.embed_queries(["one"])
        monkeypatch.setattr(backend, "_forward", fails_at_first)
        vectors = embedder.embed_queries(["two", "three"])
        again = [embedder.embed_queries([text])[0] for text in ("two", "three")]
        for kept in backend._beginnings._kept:
            assert {len(key) for key, _ in kept.layers} == {len(kept)}
            assert len(kept.layers) == len(backend._model.decoder.layers)
    np.testing.assert_allclose(vectors, again, rtol=0, atol=1e-5)


def test_nothing_is_kept_after_close(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), token_budget=777, **OPTIONS)  # an engine of its own
    backend: Any = embedder.load().backend
    for query in QUERIES:
        embedder.embed_queries([query])
    assert backend._beginnings._kept
    embedder.close()
    assert not backend._beginnings._kept
    assert not backend._beginnings._seen


def test_share_prefixes_false_keeps_nothing(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), share_prefixes=False, **OPTIONS) as embedder:
        backend: Any = embedder.load().backend
        for query in QUERIES:
            result = embedder.embed([query], role="query")
            assert result.usage.reused_tokens == 0
        assert not backend._beginnings._kept
