"""`show_progress` of LlamaIndex shows how far the core is, in one bar."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from bars import Bar, note_bars
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from qwen3_rag.testing.llama_index import TEXTS

Way = Callable[[Qwen3Embedding], Any]


def embed(embedding: Qwen3Embedding) -> Any:
    return embedding.get_text_embedding_batch(TEXTS, show_progress=True)


def embed_async(embedding: Qwen3Embedding) -> Any:
    return asyncio.run(embedding.aget_text_embedding_batch(TEXTS, show_progress=True))


def index(embedding: Qwen3Embedding) -> Any:
    nodes = [TextNode(text=text) for text in TEXTS]
    return VectorStoreIndex(nodes, embed_model=embedding, show_progress=True)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    return note_bars(monkeypatch)


@pytest.mark.parametrize("way", [embed, embed_async, index])
@pytest.mark.parametrize("options", [{}, {"embed_batch_size": 3}, {"embed_batch_size": 3, "num_workers": 2}])
def test_one_bar_moves_within_the_frameworks_batches(
    way: Way, options: dict[str, Any], embedding: Qwen3Embedding, bars: list[Bar]
) -> None:
    way(embedding.model_copy(update=options))
    (bar,) = bars
    assert (bar.desc, bar.total, bar.n) == ("Generating embeddings", len(TEXTS), len(TEXTS))
    assert max(bar.moves) == 2


@pytest.mark.parametrize("way", [embed, embed_async])
def test_texts_from_the_cache_count_as_done(way: Way, embedding: Qwen3Embedding, bars: list[Bar]) -> None:
    cached = embedding.model_copy(update={"embeddings_cache": SimpleKVStore()})
    cached.get_text_embedding_batch(TEXTS[:3])
    way(cached)
    way(cached)
    assert [bar.moves for bar in bars] == [[2, 3], [5]]


@pytest.mark.parametrize("texts", [TEXTS, []])
def test_no_bar_is_shown_unless_it_is_asked_for_and_there_are_texts(
    texts: list[str], embedding: Qwen3Embedding, capfd: pytest.CaptureFixture[str]
) -> None:
    embedding.load()
    capfd.readouterr()
    embedding.get_text_embedding_batch(texts)
    asyncio.run(embedding.aget_text_embedding_batch(texts))
    assert capfd.readouterr().err == ""
    embedding.get_text_embedding_batch(texts, show_progress=True)
    assert ("Generating embeddings" in capfd.readouterr().err) is bool(texts)
