"""What callers give texts in: whatever can be listed keeps its order, and what is ambiguous is refused."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen3_rag import Embedder, Reranker
from qwen3_rag.chunks import chunks

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


class Table:
    """Lists the names of its columns, which may be pairs, as a pandas DataFrame does."""

    ndim = 2

    def __init__(self, names: list[Any]) -> None:
        self._names = names

    def __iter__(self) -> Any:
        return iter(self._names)


@pytest.mark.parametrize(
    "form",
    [
        iter,
        tuple,
        np.array,
        ByLabel,
        lambda texts: dict(enumerate(texts)).values(),
        lambda texts: dict.fromkeys(texts).keys(),
        deque,
    ],
    ids=["generator", "tuple", "array", "read by label", "values", "keys", "deque"],
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


@pytest.mark.parametrize(
    "form",
    [
        iter,
        deque,
        np.array,
        lambda pairs: np.array(pairs, dtype=object),
        lambda pairs: [list(pair) for pair in pairs],
    ],
    ids=["generator", "deque", "array", "array of objects", "lists"],
)
def test_the_form_that_pairs_come_in_changes_nothing(
    form: Callable[[list[tuple[str, str]]], Any], reranker: Reranker
) -> None:
    pairs = [("q", text) for text in DOCUMENTS]
    np.testing.assert_array_equal(reranker.score_pairs(form(pairs)), reranker.score_pairs(pairs))


def test_a_table_is_refused_since_it_lists_the_names_of_its_columns(
    embedder: Embedder, reranker: Reranker
) -> None:
    for table in (Table(["text"]), np.array([DOCUMENTS])):
        for call in (embedder.embed_documents, embedder.embed_queries, lambda t: reranker.rerank("q", t)):
            with pytest.raises(TypeError, match=f"one column of .* strings, got {type(table).__name__} of two"):
                call(table)
    with pytest.raises(TypeError, match=r"pairs, got Table of two dimensions; take its rows.*to_numpy"):
        reranker.score_pairs(Table([("a", "b"), ("a", "c")]))


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_is_refused_since_it_has_no_order(kind: Any, embedder: Embedder, reranker: Reranker) -> None:
    with pytest.raises(TypeError, match=f"expected a list of text strings, got {kind.__name__}"):
        embedder.embed_documents(kind(DOCUMENTS))
    with pytest.raises(TypeError, match=f"expected a list of document strings, got {kind.__name__}"):
        reranker.score("q", kind(DOCUMENTS))


@pytest.mark.parametrize("wrong", [{"q": 1, "d": 2}, {"q", "d"}, ("q",), np.array(["q", "d", "e"]), 7])
def test_what_is_no_pair_is_refused(wrong: Any, reranker: Reranker) -> None:
    with pytest.raises(TypeError, match=r"pair 1 must be \(query, document\), got"):
        reranker.score_pairs([("q", "d"), wrong])


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 10))
def test_chunks_hold_all_inputs_in_order_and_few_long_ones(lengths: list[int], max_tokens: int) -> None:
    texts = [str(place).ljust(length) for place, length in enumerate(lengths)]
    with patch.multiple("qwen3_rag.chunks", _CHUNK=8, _CHUNK_CHARACTERS=100, CHARACTERS_PER_TOKEN=6):
        made = list(chunks(texts, max_tokens))
    assert [text for _, chunk in made for text in chunk] == texts
    for start, chunk in made:
        assert texts[start] == chunk[0]
        counted = sum(min(len(text), 6 * max_tokens) for text in chunk)
        assert len(chunk) <= 8
        assert len(chunk) == 1 or counted <= 100
        after = texts[start + len(chunk) :]
        assert not after or len(chunk) == 8 or counted + min(len(after[0]), 6 * max_tokens) > 100


def _refill(given: list[Any]) -> None:
    if isinstance(given[0], list):
        given[-1][:] = ["other", "other"]
    given[:] = [given[-1]] * len(given)


@pytest.mark.parametrize("change", [_refill, list.clear], ids=["refilled", "cleared"])
@pytest.mark.parametrize("kind", ["texts", "ranking", "pairs"])
def test_what_the_owner_does_to_a_list_while_a_call_waits_is_not_seen(
    kind: str,
    change: Callable[[list[Any]], None],
    embedder: Embedder,
    reranker: Reranker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qwen3_rag.chunks._CHUNK", 2)
    used: Any = embedder if kind == "texts" else reranker
    calls: dict[str, Callable[[list[Any]], Any]] = {
        "texts": embedder.aembed_documents,
        "ranking": lambda texts: reranker.arerank("q", texts),
        "pairs": lambda texts: reranker.aevaluate(texts),
    }
    given: list[Any] = [f"text {i}" for i in range(40)]
    if kind == "pairs":
        given = [["q", text] for text in given]
    expected = asyncio.run(calls[kind](copy.deepcopy(given)))
    backend = used.load().backend
    running, gate, run = threading.Event(), threading.Event(), backend.run

    def held_up(prompts: Any) -> Any:
        running.set()
        assert gate.wait(60)
        return run(prompts)

    async def changed() -> Any:
        task = asyncio.create_task(calls[kind](given))
        while not running.is_set():
            await asyncio.sleep(0.001)
        change(given)
        gate.set()
        return await task

    monkeypatch.setattr(backend, "run", held_up)
    found = asyncio.run(changed())
    if kind == "ranking":
        found, expected = ([(one.index, one.text) for one in ranking] for ranking in (found, expected))
    elif kind == "pairs":
        found, expected = found.scores, expected.scores
    np.testing.assert_array_equal(found, expected)


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
