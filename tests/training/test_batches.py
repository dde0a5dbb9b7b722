"""Batches for contrastive training: what is right for a query never stands in one as wrong."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from tokenizers import Tokenizer

from training.batches import dataset_of, distinct_batches, draw_negatives
from training.pairs import Pair, answers_of
from training.static import train_static

PAIRS = [Pair(f"query {i}", f"passage {i}") for i in range(40)]
SHARED = [
    *PAIRS,
    *(Pair(f"query {i}", f"passage {i + 1}") for i in range(0, 40, 2)),
    *(Pair(f"query {i}", f"passage {i}") for i in range(0, 40, 3)),
]
"""Queries with two passages, passages with two queries, and pairs that are there twice."""


def test_a_batch_holds_one_answer_of_each_of_its_queries() -> None:
    answers = answers_of(SHARED)
    for batch in distinct_batches(SHARED, steps=50, batch_size=8, generator=random.Random(0)):
        assert len(batch) == 8
        passages = {pair.passage for pair in batch}
        assert all(answers[pair.query] & passages == {pair.passage} for pair in batch)


def test_every_pair_is_seen_once_in_a_round_where_none_stands_in_anothers_way() -> None:
    batches = distinct_batches(PAIRS, steps=15, batch_size=8, generator=random.Random(0))
    counts = Counter(pair for batch in batches for pair in batch)
    assert set(counts) == set(PAIRS)
    assert set(counts.values()) == {3}
    assert batches[:5] != batches[5:10], "each round has its own order"


def test_pairs_given_several_times_are_seen_more_often() -> None:
    batches = distinct_batches([*PAIRS, *PAIRS[:20] * 2], steps=200, batch_size=4, generator=random.Random(0))
    counts = Counter(pair for batch in batches for pair in batch)
    often, once = (sum(counts[pair] for pair in part) for part in (PAIRS[:20], PAIRS[20:]))
    assert often > 2.5 * once


def test_batches_are_smaller_where_too_few_pairs_can_stand_together() -> None:
    batches = distinct_batches(SHARED[:3] * 4, steps=5, batch_size=8, generator=random.Random(0))
    assert [len(batch) for batch in batches] == [3] * 5


def test_pairs_that_all_answer_one_query_are_refused() -> None:
    pairs = [Pair("one query", f"passage {i}") for i in range(9)]
    with pytest.raises(ValueError, match="got 9 pairs of 1 queries; give pairs of more queries"):
        distinct_batches(pairs, steps=2, batch_size=4, generator=random.Random(0))


def test_no_drawn_negative_answers_a_query_of_its_batch() -> None:
    batches = distinct_batches(PAIRS, steps=10, batch_size=8, generator=random.Random(0))
    texts = [pair.passage for pair in PAIRS]
    mined = {pair: [text for text in texts if text != pair.passage] for pair in PAIRS}
    drawn = draw_negatives(batches, mined, count=3, generator=random.Random(0))
    of_batch = [drawn[start : start + 8] for start in range(0, 80, 8)]
    for batch, negatives in zip(batches, of_batch, strict=True):
        right = {pair.passage for pair in batch}
        assert all(right.isdisjoint(few) and len(set(few)) == 3 for few in negatives)
    rows = dataset_of(batches, passage="> ".__add__, negatives=drawn)
    assert rows.column_names == ["anchor", "positive", "negative_0", "negative_1", "negative_2"]
    assert [rows[9][f"negative_{i}"] for i in range(3)] == [f"> {text}" for text in drawn[9]]


def test_a_pair_with_too_few_negatives_is_named() -> None:
    mined = {pair: [PAIRS[0].passage, PAIRS[1].passage, "another"] for pair in PAIRS}
    with pytest.raises(ValueError, match="2 wrong passages are wanted for 'query 0', 1 are left; mine more"):
        draw_negatives([PAIRS[:2]], mined, count=2, generator=random.Random(0))


def test_token_vectors_learn_which_passage_is_whose(tokenizer: Tokenizer, tmp_path: object) -> None:
    def margin(vectors: np.ndarray) -> float:
        embedded = [
            np.array([vectors[encoding.ids].mean(axis=0) for encoding in tokenizer.encode_batch(texts)])
            for texts in ([pair.query for pair in PAIRS], [pair.passage for pair in PAIRS])
        ]
        queries, passages = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in embedded)
        similarities = queries @ passages.T
        return float(np.diag(similarities).mean() - similarities.mean())

    start = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 16)).astype(np.float32)
    trained = train_static(
        tokenizer, start, PAIRS, tmp_path, dimensions=(8, 16), steps=10, batch_size=16, learning_rate=0.05
    )
    assert trained.shape == start.shape
    assert margin(trained) > margin(start) + 0.01
