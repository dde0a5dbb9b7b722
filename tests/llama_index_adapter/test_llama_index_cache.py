"""`embeddings_cache` saves work and never answers with another text's, role's or model's vector."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from qwen3_rag import Embedder
from qwen3_rag.testing.recording import recording


@pytest.fixture
def store() -> SimpleKVStore:
    return SimpleKVStore()


@pytest.fixture
def cached(embedder: Embedder, store: SimpleKVStore) -> Qwen3Embedding:
    return Qwen3Embedding(embedder=embedder, embeddings_cache=store)


async def ask_all_async(embedding: Qwen3Embedding, text: str) -> None:
    await embedding.aget_query_embedding(text)
    await embedding.aget_text_embedding(text)
    await embedding.aget_text_embedding_batch([text])


def ask_all(embedding: Qwen3Embedding, text: str) -> None:
    embedding.get_query_embedding(text)
    embedding.get_text_embedding(text)
    embedding.get_text_embedding_batch([text])


@pytest.mark.parametrize("first", ["sync", "async"])
def test_a_text_is_computed_once_as_query_and_once_as_document(first: str, cached: Qwen3Embedding) -> None:
    with recording(cached.embedder) as recorded:
        for way in (first, "sync", "async"):
            ask_all(cached, "moon") if way == "sync" else asyncio.run(ask_all_async(cached, "moon"))
    assert len(recorded.prompts) == 2


def test_a_batch_computes_only_what_is_new(cached: Qwen3Embedding) -> None:
    cached.get_text_embedding_batch(["a", "b"])
    with recording(cached.embedder) as recorded:
        vectors = cached.get_text_embedding_batch(["b", "c", "a"])
    assert len(recorded.prompts) == 1
    assert vectors == [cached.get_text_embedding(text) for text in ("b", "c", "a")]


@pytest.mark.parametrize("change", [{"dimensions": 32}, {"max_tokens": 100}, {"parse_special_tokens": True}])
def test_other_settings_have_other_keys(
    change: dict[str, Any], cached: Qwen3Embedding, store: SimpleKVStore
) -> None:
    cached.get_text_embedding("moon")
    other = cached.model_copy(update=change)
    assert other.embeddings_cache.store is store
    with recording(other.embedder) as recorded:
        vector = other.get_text_embedding("moon")
    assert len(recorded.prompts) == 1
    assert len(vector) == change.get("dimensions", 64)


def test_another_instruction_changes_queries_only(cached: Qwen3Embedding) -> None:
    ask_all(cached, "moon")
    other = cached.model_copy(update={"instruction": "Find the tide"})
    with recording(other.embedder) as recorded:
        ask_all(other, "moon")
    assert len(recorded.prompts) == 1
    assert other.get_query_embedding("moon") != cached.get_query_embedding("moon")


def test_a_stored_cache_serves_the_next_process(
    cached: Qwen3Embedding, store: SimpleKVStore, tmp_path: Path
) -> None:
    ask_all(cached, "moon")
    store.persist(str(tmp_path / "cache.json"))
    loaded = SimpleKVStore.from_persist_path(str(tmp_path / "cache.json"))
    again = Qwen3Embedding(embedder=cached.embedder, embeddings_cache=loaded)
    with recording(again.embedder) as recorded:
        ask_all(again, "moon")
    assert recorded.prompts == []


def test_the_cache_is_looked_into_and_emptied_by_text(cached: Qwen3Embedding) -> None:
    vector = cached.get_text_embedding("moon")
    cache = cached.embeddings_cache
    assert list(cache.get("moon", collection="embeddings").values()) == [vector]
    assert list(asyncio.run(cache.aget_all("embeddings"))) == list(cache.get_all("embeddings"))
    assert cache.delete("moon", collection="embeddings")
    assert not asyncio.run(cache.adelete("moon", collection="embeddings"))
    assert cache.get_all("embeddings") == {}


def test_a_cache_may_be_assigned_and_taken_away(embedding: Qwen3Embedding, store: SimpleKVStore) -> None:
    embedding.embeddings_cache = store
    assert embedding.embeddings_cache.store is store
    with recording(embedding.embedder) as recorded:
        ask_all(embedding, "moon")
        ask_all(embedding, "moon")
    assert len(recorded.prompts) == 2
    embedding.embeddings_cache = None
    assert embedding.embeddings_cache is None


def test_another_models_view_of_a_store_gets_keys_of_its_own(cached: Qwen3Embedding) -> None:
    cached.get_text_embedding("moon")
    short = cached.model_copy(update={"dimensions": 32, "embeddings_cache": None})
    short.embeddings_cache = cached.embeddings_cache
    assert len(short.get_text_embedding("moon")) == 32


def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(TypeError, match="BaseKVStore"):
        Qwen3Embedding(embeddings_cache={})
    embedding = Qwen3Embedding()
    with pytest.raises(TypeError, match="BaseKVStore, got dict"):
        embedding.embeddings_cache = {}
    assert embedding.embeddings_cache is None
