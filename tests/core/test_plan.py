"""The plan computes every sequence once, shares what is worth it, and keeps to the budget."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_rag.plan import MIN_SHARED_TOKENS, PackedBatch, Segment, plan_batches
from qwen3_rag.tokens import TokenIds

_tokens = st.integers(0, 2)


@st.composite
def nested_sequences(draw: st.DrawFn) -> list[TokenIds]:
    """Sequences over a tiny alphabet that share prefixes of many lengths, some being equal."""
    stems = draw(st.lists(st.lists(_tokens, max_size=30), min_size=1, max_size=4))
    sequences = []
    for _ in range(draw(st.integers(1, 12))):
        stem = draw(st.sampled_from(stems))
        head = stem[: draw(st.integers(0, len(stem)))]
        sequences.append(head + draw(st.lists(_tokens, min_size=0 if head else 1, max_size=20)))
    return [np.array(sequence, dtype=np.int32) for sequence in sequences]


def rows_of(batch: PackedBatch, last_row: int) -> list[int]:
    """Rows that the token in `last_row` attends to, in order of position."""
    index = next(i for i, s in enumerate(batch.segments) if s.start <= last_row < s.stop)
    rows = list(range(batch.segments[index].start, last_row + 1))
    parent = batch.segments[index].parent
    while parent is not None:
        segment = batch.segments[parent]
        rows = [*range(segment.start, segment.stop), *rows]
        parent = segment.parent
    return rows


@settings(max_examples=400)
@given(nested_sequences(), st.integers(1, 200), st.booleans())
def test_every_sequence_stands_whole_in_one_batch(
    sequences: list[TokenIds], token_budget: int, share: bool
) -> None:
    seen = []
    batches = list(plan_batches(sequences, token_budget=token_budget, share_prefixes=share))
    for batch in batches:
        most = token_budget * 9 / 8 if batch is batches[-1] else token_budget
        boundaries = [0, *(segment.stop for segment in batch.segments)]
        assert [segment.start for segment in batch.segments] == boundaries[:-1]
        assert boundaries[-1] == len(batch.token_ids) == len(batch.position_ids) == batch.computed.sum()
        assert len(batch.token_ids) <= most or len({sequences[i].tobytes() for i in batch.sequences}) == 1
        for row, index in zip(batch.last_rows, batch.sequences, strict=True):
            rows = rows_of(batch, int(row))
            np.testing.assert_array_equal(batch.token_ids[rows], sequences[index])
            np.testing.assert_array_equal(batch.position_ids[rows], np.arange(len(rows)))
            seen.append(int(index))
    assert sorted(seen) == list(range(len(sequences)))


def test_a_common_prefix_is_computed_once() -> None:
    prefix = list(range(70))
    sequences = [np.array([*prefix, 1000 + i, 5, 6], dtype=np.int32) for i in range(100)]
    (batch,) = plan_batches(sequences, token_budget=10_000)
    assert len(batch.token_ids) == 70 + 100 * 3
    assert len(batch.segments) == 101


def test_sequences_with_a_common_beginning_need_not_be_neighbours() -> None:
    sequences = [np.array([*[i % 3] * 60, 100 + i], dtype=np.int32) for i in range(15)]
    (batch,) = plan_batches(sequences, token_budget=10_000)
    assert len(batch.token_ids) == 3 * 60 + 15


def test_a_beginning_counts_once_in_each_batch() -> None:
    sequences = [np.array([*range(50), 1000 + i, *[7] * 9], dtype=np.int32) for i in range(12)]
    batches = plan_batches(sequences, token_budget=100)
    assert [len(batch.token_ids) for batch in batches] == [50 + 5 * 10, 50 + 5 * 10, 50 + 2 * 10]


def test_prefixes_nest() -> None:
    template, queries = list(range(60)), [[100 + i] * 20 for i in range(3)]
    sequences = [
        np.array([*template, *query, 500 + document], dtype=np.int32)
        for query in queries
        for document in range(5)
    ]
    (batch,) = plan_batches(sequences, token_budget=10_000)
    assert len(batch.token_ids) == 60 + 3 * 20 + 15


def test_identical_sequences_are_computed_once_however_short() -> None:
    sequences = [np.array(ids, dtype=np.int32) for ids in ([7], [7], [1, 2], [1, 2], [1, 2])]
    (batch,) = plan_batches(sequences, token_budget=100)
    assert len(batch.token_ids) == 3
    (batch,) = plan_batches([np.arange(50, dtype=np.int32)] * 3, token_budget=20)
    assert len(batch.token_ids) == 50, "longer than the budget"


def test_prefixes_too_short_to_pay_are_not_shared() -> None:
    prefix = list(range(MIN_SHARED_TOKENS - 1))
    sequences = [np.array([*prefix, 100 + i], dtype=np.int32) for i in range(4)]
    (batch,) = plan_batches(sequences, token_budget=100)
    assert len(batch.token_ids) == 4 * MIN_SHARED_TOKENS
    assert all(segment.parent is None for segment in batch.segments)
    longer = [np.array([0, *ids], dtype=np.int32) for ids in sequences]
    (batch,) = plan_batches([*longer, np.array([7], dtype=np.int32)], token_budget=100)
    assert len(batch.token_ids) == MIN_SHARED_TOKENS + 4 + 1, "one more is enough"


def test_a_batch_with_one_sequence_is_one_segment() -> None:
    shared = list(range(50))
    sequences = [np.array([*shared, 90 + i], dtype=np.int32) for i in range(2)]
    batches = list(plan_batches(sequences, token_budget=46))
    assert [batch.segments for batch in batches] == [(Segment(0, 51, None),)] * 2


def test_a_last_part_too_small_to_be_a_batch_joins_the_one_before() -> None:
    sequences = [np.full(10, i, dtype=np.int32) for i in range(21)]
    assert [len(batch.sequences) for batch in plan_batches(sequences, token_budget=100)] == [10, 11]
    assert [len(batch.sequences) for batch in plan_batches(sequences[:9], token_budget=80)] == [9]


def test_no_sequences_make_no_batch() -> None:
    assert list(plan_batches([], token_budget=10)) == []


def test_texts_that_nest_without_end_are_planned_without_deep_recursion() -> None:
    sequences = [np.zeros(n, dtype=np.int32) for n in range(1, 3000, 8)]
    total = sum(len(batch.token_ids) for batch in plan_batches(sequences, token_budget=1 << 30))
    assert total <= sum(map(len, sequences))
