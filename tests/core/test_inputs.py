"""What callers give texts in: whatever can be listed keeps its order, and what is ambiguous is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from qwen3_rag import Embedder, Reranker

DOCUMENTS = ["Beijing is the capital of China.", "Cats sleep.", "Gravity pulls."]


class ByLabel:
    """Read by label, as a pandas Series that was sorted or filtered is: `series[0]` is not its first text."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(texts)

    def __iter__(self) -> Any:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, label: Any) -> Any:
        if isinstance(label, slice):
            return ByLabel(self._texts[label])
        return self._texts[len(self._texts) - 1 - label]


@pytest.mark.parametrize(
    "form",
    [
        iter,
        tuple,
        np.array,
        ByLabel,
        lambda texts: dict(enumerate(texts)).values(),
        lambda texts: dict.fromkeys(texts).keys(),
    ],
    ids=["generator", "tuple", "array", "read by label", "values", "keys"],
)
def test_the_form_that_texts_come_in_changes_nothing(
    form: Callable[[list[str]], Any], embedder: Embedder, reranker: Reranker
) -> None:
    vectors, ranking = embedder.embed_documents(DOCUMENTS), reranker.rerank("q", DOCUMENTS)
    np.testing.assert_array_equal(embedder.embed_documents(form(DOCUMENTS)), vectors)
    np.testing.assert_array_equal(asyncio.run(embedder.aembed_documents(form(DOCUMENTS))), vectors)
    assert reranker.rerank("q", form(DOCUMENTS)) == ranking
    assert asyncio.run(reranker.arerank("q", form(DOCUMENTS))) == ranking
    np.testing.assert_array_equal(
        reranker.score("q", form(DOCUMENTS)), [s.score for s in sorted(ranking, key=lambda r: r.index)]
    )


def test_pairs_may_come_from_a_generator(reranker: Reranker) -> None:
    pairs = [("q", text) for text in DOCUMENTS]
    np.testing.assert_array_equal(reranker.score_pairs(pair for pair in pairs), reranker.score_pairs(pairs))


@pytest.mark.parametrize(
    ("given", "seen"), [({"a": "b"}, "got dict"), (7, "got int"), ("a", "got one str"), (None, "got NoneType")]
)
def test_what_is_no_list_of_texts_is_refused(
    given: Any, seen: str, embedder: Embedder, reranker: Reranker
) -> None:
    for call in (
        lambda: embedder.embed_documents(given),
        lambda: reranker.rerank("q", given),
        lambda: reranker.score("q", given),
        lambda: reranker.score_pairs(given),
    ):
        with pytest.raises(TypeError, match=seen):
            call()


def test_an_error_of_a_generator_reaches_the_caller(embedder: Embedder) -> None:
    def broken() -> Iterable[str]:
        yield "a"
        raise TypeError("the database is gone")

    with pytest.raises(TypeError, match="the database is gone"):
        embedder.embed_documents(broken())
