"""Bars: none for nothing, one for each call, or one for several."""

from __future__ import annotations

import asyncio

import pytest
from bars import Bar, note_bars
from qwen3_rag import Embedder, Reranker
from qwen3_rag.progress import one_bar


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    return note_bars(monkeypatch)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder("demo", device="cpu")


def test_each_call_has_a_bar_that_moves_as_texts_are_done(bars: list[Bar], embedder: Embedder) -> None:
    embedder.embed_documents(list("abcde"), progress=True)
    embedder.embed_documents(list("abc"), progress=False)
    asyncio.run(embedder.aembed_documents(list("abc"), progress=True))
    assert [(bar.total, bar.moves) for bar in bars] == [(5, [2, 2, 1]), (3, [2, 1])]


def test_no_texts_have_no_bar(bars: list[Bar], embedder: Embedder, capfd: pytest.CaptureFixture[str]) -> None:
    embedder.embed_documents([], progress=True)
    Reranker("demo", device="cpu").rerank("q", [], progress=True)
    with one_bar(0, "Nothing"):
        pass
    assert bars == []
    assert capfd.readouterr().err == ""


def test_calls_may_move_one_bar_together(bars: list[Bar], embedder: Embedder) -> None:
    async def both() -> None:
        with one_bar(9, "All"):
            await asyncio.gather(*(embedder.aembed_documents(list("abc"), progress=p) for p in (True, False)))

    asyncio.run(both())
    (bar,) = bars
    assert (bar.total, bar.desc, bar.n) == (9, "All", 9)
    assert sorted(bar.moves) == [1, 1, 2, 2, 3], "the last are the texts that no call had"
    embedder.embed_documents(["a"], progress=True)
    assert len(bars) == 2


def test_a_bar_is_left_where_it_was_when_a_call_fails(bars: list[Bar], embedder: Embedder) -> None:
    with pytest.raises(TypeError), one_bar(3, "All"):
        embedder.embed_documents([None])  # type: ignore[list-item]
    assert bars[0].n == 0
    embedder.embed_documents(["a"])
    assert len(bars) == 1
