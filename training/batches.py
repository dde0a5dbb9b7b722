"""Batches for contrastive training, in which the other pairs' passages are a query's wrong ones.

Sentence Transformers' `NO_DUPLICATES` compares texts. It cannot know that a query has a second passage, which
then stands in a batch as another query's and is trained to be far away.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler

from training.pairs import Pair, answers_of


def distinct_batches(
    pairs: Sequence[Pair], *, steps: int, batch_size: int, generator: random.Random
) -> list[list[Pair]]:
    """Return batches in which no pair's passage answers another pair's query.

    Pairs come in rounds, each in a new order. What is left of a round and does not make a whole batch is
    dropped; the next round has it again.

    Args:
        pairs: some may be there several times, to be seen more often.
        steps: batches.
        batch_size: pairs of each; fewer where no more can stand together.
        generator: makes the orders.

    Raises:
        ValueError: no two pairs can stand together, so there is nothing to tell apart.
    """
    answers = answers_of(pairs)
    batches: list[list[Pair]] = []
    while len(batches) < steps:
        rest = deque(generator.sample(list(pairs), len(pairs)))
        batch = _take(rest, answers, batch_size)
        if len(batch) < 2:
            raise ValueError(
                f"training needs pairs whose passages do not answer each other's queries, got {len(pairs)} "
                f"pairs of {len(answers)} queries; give pairs of more queries"
            )
        batches.append(batch)
        while len(rest) >= batch_size and len(batch := _take(rest, answers, batch_size)) == batch_size:
            batches.append(batch)
    return batches[:steps]


def dataset_of(
    batches: Sequence[Sequence[Pair]],
    *,
    query: Callable[[str], str] = str,
    passage: Callable[[str], str] = str,
    negatives: Sequence[Sequence[str]] = (),
) -> Dataset:
    """Return the batches' pairs one after another, as the contrastive losses take them.

    Args:
        batches: of `distinct_batches`.
        query, passage: put prompts before texts.
        negatives: of `draw_negatives`.
    """
    pairs = [pair for batch in batches for pair in batch]
    columns = {
        "anchor": [query(pair.query) for pair in pairs],
        "positive": [passage(pair.passage) for pair in pairs],
    }
    for number, column in enumerate(zip(*negatives, strict=True)):
        columns[f"negative_{number}"] = [passage(text) for text in column]
    return Dataset.from_dict(columns)


def draw_negatives(
    batches: Sequence[Sequence[Pair]],
    mined: Mapping[Pair, Sequence[str]],
    *,
    count: int,
    generator: random.Random,
) -> list[list[str]]:
    """Draw wrong passages of every pair, none of which answers a query of its batch.

    Args:
        batches: of `distinct_batches`.
        mined: more wrong passages of each pair than are drawn, since some may stand in the batch.
        count: wrong passages of each pair.
        generator: draws.

    Returns:
        A list for every pair, batch after batch.

    Raises:
        ValueError: a pair has too few.
    """
    drawn = []
    for batch in batches:
        right = {pair.passage for pair in batch}
        for pair in batch:
            fit = [text for text in mined.get(pair, ()) if text not in right]
            if len(fit) < count:
                raise ValueError(
                    f"{count} wrong passages are wanted for {pair.query!r}, {len(fit)} are left; mine more"
                )
            drawn.append(generator.sample(fit, count))
    return drawn


def in_given_order(batches: Sequence[Sequence[Pair]]) -> Callable[..., DefaultBatchSampler]:
    """Return what Sentence Transformers takes as `batch_sampler`, for `dataset_of` the same batches."""

    def make(dataset: Dataset, **_: Any) -> DefaultBatchSampler:
        return _InGivenOrder(dataset, [len(batch) for batch in batches])

    return make


class _InGivenOrder(DefaultBatchSampler):
    def __init__(self, dataset: Dataset, sizes: Sequence[int]) -> None:
        super().__init__(dataset, batch_size=max(sizes), drop_last=False)
        self._sizes = sizes

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for size in self._sizes:
            yield list(range(start, start + size))
            start += size

    def __len__(self) -> int:
        return len(self._sizes)


def _take(rest: deque[Pair], answers: Mapping[str, set[str]], batch_size: int) -> list[Pair]:
    """Move the first pairs that can stand together out of `rest`."""
    batch: list[Pair] = []
    skipped: list[Pair] = []
    passages: set[str] = set()
    right: set[str] = set()
    while rest and len(batch) < batch_size:
        pair = rest.popleft()
        if pair.passage in right or not answers[pair.query].isdisjoint(passages):
            skipped.append(pair)
        else:
            batch.append(pair)
            passages.add(pair.passage)
            right |= answers[pair.query]
    rest.extendleft(reversed(skipped))
    return batch
