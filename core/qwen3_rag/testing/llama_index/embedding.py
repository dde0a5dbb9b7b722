"""What an embedding model owes its users."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from qwen3_rag.testing.adapter import CONCURRENT_CALLS, AdapterContract
from qwen3_rag.testing.llama_index.event_log import CallbackLog, events
from qwen3_rag.testing.llama_index.samples import QUERY, TEXTS


class EmbeddingContract(AdapterContract):
    """What an embedding model must do in LlamaIndex: `embedding_class` and `embedding_params`.

    More than `BaseEmbedding` gives by itself:

    - a cache that tells queries from documents, if the model embeds them otherwise: the framework's own
      looks a text up by the text alone (`test_a_cache_changes_no_vector`);
    - async methods that do not call the sync ones, as `_aget_text_embedding` does unless overridden;
    - pickles and deep copies without weights, and a `from_dict` that undoes `to_dict`.
    """

    @property
    def embedding_class(self) -> type[BaseEmbedding]:
        """The class under test."""
        raise NotImplementedError

    @property
    def embedding_params(self) -> dict[str, Any]:
        """Its constructor's arguments. Vectors must be the same from call to call."""
        raise NotImplementedError

    @pytest.fixture
    def embedding(self) -> BaseEmbedding:
        """An instance, made anew for each test."""
        return self.embedding_class(**self.embedding_params)

    def test_vectors_are_lists_of_floats_of_one_length(self, embedding: BaseEmbedding) -> None:
        vectors = [embedding.get_query_embedding(QUERY), *embedding.get_text_embedding_batch(TEXTS)]
        assert all(type(number) is float for vector in vectors for number in vector)
        assert len({len(vector) for vector in vectors}) == 1

    def test_a_batch_gives_the_vectors_of_its_texts_in_their_order(self, embedding: BaseEmbedding) -> None:
        alone = [embedding.get_text_embedding(text) for text in TEXTS]
        assert embedding.get_text_embedding_batch(TEXTS) == [
            pytest.approx(v, abs=self.tolerance) for v in alone
        ]

    def test_more_texts_than_the_batch_size_give_the_same_vectors(self, embedding: BaseEmbedding) -> None:
        whole = embedding.get_text_embedding_batch(TEXTS)
        embedding.embed_batch_size = 2
        assert embedding.get_text_embedding_batch(TEXTS) == [
            pytest.approx(v, abs=self.tolerance) for v in whole
        ]

    def test_no_texts_give_no_vectors(self, embedding: BaseEmbedding) -> None:
        assert embedding.get_text_embedding_batch([]) == []
        assert asyncio.run(embedding.aget_text_embedding_batch([])) == []

    def test_the_list_of_texts_is_not_changed(self, embedding: BaseEmbedding) -> None:
        texts = list(TEXTS)
        embedding.get_text_embedding_batch(texts)
        assert texts == TEXTS

    def test_async_methods_give_what_the_others_give(self, embedding: BaseEmbedding) -> None:
        async def ask() -> tuple[list[float], list[float], list[list[float]]]:
            return (
                await embedding.aget_query_embedding(QUERY),
                await embedding.aget_text_embedding(TEXTS[0]),
                await embedding.aget_text_embedding_batch(TEXTS),
            )

        query, text, batch = asyncio.run(ask())
        assert query == pytest.approx(embedding.get_query_embedding(QUERY), abs=self.tolerance)
        assert text == pytest.approx(embedding.get_text_embedding(TEXTS[0]), abs=self.tolerance)
        assert batch == [
            pytest.approx(v, abs=self.tolerance) for v in embedding.get_text_embedding_batch(TEXTS)
        ]

    def test_aggregated_queries_are_the_mean_of_each(self, embedding: BaseEmbedding) -> None:
        queries = [QUERY, "moon distance"]
        each = [embedding.get_query_embedding(query) for query in queries]
        mean = pytest.approx([sum(numbers) / 2 for numbers in zip(*each, strict=True)], abs=self.tolerance)
        assert embedding.get_agg_embedding_from_queries(queries) == mean
        assert asyncio.run(embedding.aget_agg_embedding_from_queries(queries)) == mean

    def test_concurrent_calls_let_the_event_loop_run(self, embedding: BaseEmbedding) -> None:
        embedding.get_query_embedding("load")
        self.check_loop_turns(embedding, partial(embedding.aget_query_embedding, QUERY), CONCURRENT_CALLS)

    def test_pickle_and_deepcopy_carry_the_configuration_only(self, embedding: BaseEmbedding) -> None:
        self.check_copies(embedding, lambda e: e.get_query_embedding(QUERY))

    def test_from_dict_makes_what_to_dict_wrote(self, embedding: BaseEmbedding) -> None:
        vector = embedding.get_query_embedding(QUERY)
        twin = self.embedding_class.from_dict(embedding.to_dict())
        assert twin.to_dict() == embedding.to_dict()
        assert twin.get_query_embedding(QUERY) == pytest.approx(vector, abs=self.tolerance)

    def test_each_call_has_one_start_and_one_end_event(self, embedding: BaseEmbedding) -> None:
        embedding.callback_manager = CallbackManager([calls := CallbackLog()])
        with events() as seen:
            embedding.get_query_embedding(QUERY)
            embedding.get_text_embedding_batch(TEXTS)
            asyncio.run(embedding.aget_query_embedding(QUERY))
        names = [event.class_name() for event in seen]
        assert names.count("EmbeddingStartEvent") == names.count("EmbeddingEndEvent") == 3
        assert [t for t, _ in calls.started] == [t for t, _ in calls.ended] == [CBEventType.EMBEDDING] * 3

    def test_a_progress_bar_changes_no_vector_and_no_event(self, embedding: BaseEmbedding) -> None:
        expected = [
            pytest.approx(vector, abs=self.tolerance) for vector in embedding.get_text_embedding_batch(TEXTS)
        ]
        embedding.embed_batch_size = 2
        for workers in (None, 2):
            embedding.num_workers = workers
            with events() as seen:
                assert embedding.get_text_embedding_batch(TEXTS, show_progress=True) == expected
                assert asyncio.run(embedding.aget_text_embedding_batch(TEXTS, show_progress=True)) == expected
            names = [event.class_name() for event in seen]
            assert names.count("EmbeddingStartEvent") == names.count("EmbeddingEndEvent") == 6

    def test_no_callback_manager_is_one_without_handlers(self) -> None:
        embedding = self.embedding_class(**{**self.embedding_params, "callback_manager": None})
        assert embedding.get_query_embedding(QUERY)

    def test_a_cache_changes_no_vector(self, embedding: BaseEmbedding) -> None:
        query, text = embedding.get_query_embedding(QUERY), embedding.get_text_embedding(QUERY)
        cached = self.embedding_class(**self.embedding_params, embeddings_cache=SimpleKVStore())
        for _ in range(2):
            assert cached.get_query_embedding(QUERY) == pytest.approx(query, abs=self.tolerance)
            assert cached.get_text_embedding(QUERY) == pytest.approx(text, abs=self.tolerance)
            assert asyncio.run(cached.aget_query_embedding(QUERY)) == pytest.approx(query, abs=self.tolerance)
            assert asyncio.run(cached.aget_text_embedding(QUERY)) == pytest.approx(text, abs=self.tolerance)
            assert cached.get_text_embedding_batch([QUERY]) == [pytest.approx(text, abs=self.tolerance)]

    def test_an_index_finds_a_text_by_itself(self, embedding: BaseEmbedding) -> None:
        index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
        bundle = QueryBundle("", embedding=embedding.get_text_embedding(TEXTS[1]))
        assert index.as_retriever(similarity_top_k=1).retrieve(bundle)[0].text == TEXTS[1]
