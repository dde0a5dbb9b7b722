"""What a LlamaIndex adapter owes its users.

Inherit a class, give its two properties and `hold`, and pytest checks the contract. Nothing here knows
Qwen3, so embedding models and rerankers of other vendors may be held to it as well::

    class TestMyRerank(RerankContract):
        @property
        def rerank_class(self):
            return MyRerank

        @property
        def rerank_params(self):
            return {"model": "..."}

        def hold(self, adapter):
            return my_gate_in_front_of(adapter.client)  # see EventLoopContract.hold

Not every model that works in LlamaIndex passes: `EmbeddingContract` says what it asks beyond the base class.

Needs pytest and llama-index-core.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.kvstore import SimpleKVStore

from qwen3_rag.testing.event_loop import EventLoopContract
from qwen3_rag.testing.weights import holds_tensor

QUERY: Final = "How far is the moon?"
TEXTS: Final = [
    "The moon is 384,400 km away.",
    "Bread is baked at 230 degrees.",
    "  Leading spaces,\nnewlines\n\nand\ttabs are text too.",
    "月は地球の衛星である。",
    "A tide follows the moon.",
]
MAX_PICKLE: Final = 50_000
"""Bytes; a configuration is far smaller, weights are far larger."""

CONCURRENT: Final = 50


class EmbeddingContract(EventLoopContract):
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
        assert embedding.get_text_embedding_batch(TEXTS) == [pytest.approx(v, abs=1e-4) for v in alone]

    def test_more_texts_than_the_batch_size_give_the_same_vectors(self, embedding: BaseEmbedding) -> None:
        whole = embedding.get_text_embedding_batch(TEXTS)
        embedding.embed_batch_size = 2
        assert embedding.get_text_embedding_batch(TEXTS) == [pytest.approx(v, abs=1e-4) for v in whole]

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
        assert query == pytest.approx(embedding.get_query_embedding(QUERY), abs=1e-4)
        assert text == pytest.approx(embedding.get_text_embedding(TEXTS[0]), abs=1e-4)
        assert batch == [pytest.approx(v, abs=1e-4) for v in embedding.get_text_embedding_batch(TEXTS)]

    def test_aggregated_queries_are_the_mean_of_each(self, embedding: BaseEmbedding) -> None:
        queries = [QUERY, "moon distance"]
        each = [embedding.get_query_embedding(query) for query in queries]
        mean = pytest.approx([sum(numbers) / 2 for numbers in zip(*each, strict=True)], abs=1e-4)
        assert embedding.get_agg_embedding_from_queries(queries) == mean
        assert asyncio.run(embedding.aget_agg_embedding_from_queries(queries)) == mean

    def test_concurrent_calls_let_the_event_loop_run(self, embedding: BaseEmbedding) -> None:
        embedding.get_query_embedding("load")
        self.check_loop_turns(embedding, partial(embedding.aget_query_embedding, QUERY), CONCURRENT)

    def test_pickle_and_deepcopy_carry_the_configuration_only(self, embedding: BaseEmbedding) -> None:
        vector = embedding.get_query_embedding(QUERY)
        pickled = pickle.dumps(embedding)
        assert len(pickled) < MAX_PICKLE
        for twin in (pickle.loads(pickled), copy.deepcopy(embedding)):
            assert not holds_tensor(twin), "weights came along"
            assert twin.get_query_embedding(QUERY) == pytest.approx(vector, abs=1e-4)

    def test_from_dict_makes_what_to_dict_wrote(self, embedding: BaseEmbedding) -> None:
        vector = embedding.get_query_embedding(QUERY)
        twin = self.embedding_class.from_dict(embedding.to_dict())
        assert twin.to_dict() == embedding.to_dict()
        assert twin.get_query_embedding(QUERY) == pytest.approx(vector, abs=1e-4)

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
        expected = [pytest.approx(vector, abs=1e-4) for vector in embedding.get_text_embedding_batch(TEXTS)]
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
            assert cached.get_query_embedding(QUERY) == pytest.approx(query, abs=1e-4)
            assert cached.get_text_embedding(QUERY) == pytest.approx(text, abs=1e-4)
            assert asyncio.run(cached.aget_query_embedding(QUERY)) == pytest.approx(query, abs=1e-4)
            assert asyncio.run(cached.aget_text_embedding(QUERY)) == pytest.approx(text, abs=1e-4)
            assert cached.get_text_embedding_batch([QUERY]) == [pytest.approx(text, abs=1e-4)]

    def test_an_index_finds_a_text_by_itself(self, embedding: BaseEmbedding) -> None:
        index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
        bundle = QueryBundle("", embedding=embedding.get_text_embedding(TEXTS[1]))
        assert index.as_retriever(similarity_top_k=1).retrieve(bundle)[0].text == TEXTS[1]


class RerankContract(EventLoopContract):
    """What a reranking node postprocessor must do in LlamaIndex: `rerank_class` and `rerank_params`."""

    @property
    def rerank_class(self) -> type[BaseNodePostprocessor]:
        """The class under test; its constructor takes `top_n`, None for all."""
        raise NotImplementedError

    @property
    def rerank_params(self) -> dict[str, Any]:
        """Its constructor's arguments but `top_n`. Scores must be the same from call to call."""
        raise NotImplementedError

    @pytest.fixture
    def rerank(self) -> BaseNodePostprocessor:
        """An instance that returns all nodes, made anew for each test."""
        return self._rerank(None)

    def _rerank(self, top_n: int | None) -> BaseNodePostprocessor:
        return self.rerank_class(**{**self.rerank_params, "top_n": top_n})

    def test_results_are_best_first_with_float_scores(self, rerank: BaseNodePostprocessor) -> None:
        scores = [result.score for result in rerank.postprocess_nodes(nodes(), query_str=QUERY)]
        assert all(type(score) is float for score in scores)
        assert scores == sorted(scores, reverse=True, key=lambda score: score or 0.0)

    def test_results_keep_ids_texts_and_metadata(self, rerank: BaseNodePostprocessor) -> None:
        given = {n.node_id: (n.text, n.metadata) for n in nodes()}
        results = rerank.postprocess_nodes(nodes(), query_str=QUERY)
        assert {n.node_id: (n.text, n.metadata) for n in results} == given

    def test_a_score_does_not_depend_on_the_other_nodes(self, rerank: BaseNodePostprocessor) -> None:
        together = scores_by_id(rerank.postprocess_nodes(nodes(), query_str=QUERY))
        reversed_order = scores_by_id(rerank.postprocess_nodes(nodes()[::-1], query_str=QUERY))
        alone = scores_by_id(
            [result for node in nodes() for result in rerank.postprocess_nodes([node], query_str=QUERY)]
        )
        assert reversed_order == pytest.approx(together, abs=1e-4)
        assert alone == pytest.approx(together, abs=1e-4)

    def test_nodes_given_are_not_changed(self, rerank: BaseNodePostprocessor) -> None:
        given = nodes()
        before = [node.to_dict() for node in given]
        results = rerank.postprocess_nodes(given, query_str=QUERY)
        for result in results:
            result.score = -1.0
            _write_into(result.node)
        assert [node.to_dict() for node in given] == before

    def test_equal_scores_keep_the_order_of_the_input(self, rerank: BaseNodePostprocessor) -> None:
        ids = ["d", "a", "c", "b"]
        twins = [NodeWithScore(node=TextNode(id_=i, text=TEXTS[0]), score=0.5) for i in ids]
        assert [n.node_id for n in rerank.postprocess_nodes(twins, query_str=QUERY)] == ids

    @pytest.mark.parametrize(("top_n", "expected"), [(None, 5), (0, 0), (1, 1), (3, 3), (99, 5)])
    def test_top_n_is_the_most_that_come_back(self, top_n: int | None, expected: int) -> None:
        best = self._rerank(None).postprocess_nodes(nodes(), query_str=QUERY)[:expected]
        results = self._rerank(top_n).postprocess_nodes(nodes(), query_str=QUERY)
        assert [n.node_id for n in results] == [n.node_id for n in best]

    def test_no_nodes_give_none(self, rerank: BaseNodePostprocessor) -> None:
        assert rerank.postprocess_nodes([], query_str=QUERY) == []
        assert asyncio.run(rerank.apostprocess_nodes([], query_str=QUERY)) == []

    def test_a_missing_query_is_an_error_that_says_so(self, rerank: BaseNodePostprocessor) -> None:
        with pytest.raises(ValueError, match=r"(?i)query"):
            rerank.postprocess_nodes(nodes())
        with pytest.raises(ValueError, match=r"(?i)query"):
            asyncio.run(rerank.apostprocess_nodes(nodes()))

    def test_nodes_without_text_are_not_dropped(self, rerank: BaseNodePostprocessor) -> None:
        given = [*nodes(), NodeWithScore(node=TextNode(id_="empty", text=""))]
        given.append(NodeWithScore(node=ImageNode(id_="image", image_url="https://example.org/moon.png")))
        results = rerank.postprocess_nodes(given, query_str=QUERY)
        assert {n.node_id for n in results} == {n.node_id for n in given}
        assert all(n.score is not None for n in results)

    def test_the_async_method_gives_what_the_other_gives(self, rerank: BaseNodePostprocessor) -> None:
        expected = rerank.postprocess_nodes(nodes(), query_str=QUERY)
        results = asyncio.run(rerank.apostprocess_nodes(nodes(), query_bundle=QueryBundle(QUERY)))
        assert [n.node_id for n in results] == [n.node_id for n in expected]
        assert scores_by_id(results) == pytest.approx(scores_by_id(expected), abs=1e-4)

    def test_concurrent_calls_let_the_event_loop_run(self, rerank: BaseNodePostprocessor) -> None:
        rerank.postprocess_nodes(nodes(), query_str="load")
        call = partial(rerank.apostprocess_nodes, nodes(), query_str=QUERY)
        self.check_loop_turns(rerank, call, CONCURRENT)

    def test_pickle_and_deepcopy_carry_the_configuration_only(self, rerank: BaseNodePostprocessor) -> None:
        expected = scores_by_id(rerank.postprocess_nodes(nodes(), query_str=QUERY))
        pickled = pickle.dumps(rerank)
        assert len(pickled) < MAX_PICKLE
        for twin in (pickle.loads(pickled), copy.deepcopy(rerank)):
            assert not holds_tensor(twin), "weights came along"
            results = twin.postprocess_nodes(nodes(), query_str=QUERY)
            assert scores_by_id(results) == pytest.approx(expected, abs=1e-4)

    def test_from_dict_makes_what_to_dict_wrote(self, rerank: BaseNodePostprocessor) -> None:
        twin = self.rerank_class.from_dict(rerank.to_dict())
        assert twin.to_dict() == rerank.to_dict()

    def test_each_call_has_one_start_and_one_end_event(self, rerank: BaseNodePostprocessor) -> None:
        rerank.callback_manager = CallbackManager([calls := CallbackLog()])
        with events() as seen:
            results = rerank.postprocess_nodes(nodes(), query_str=QUERY)
            asyncio.run(rerank.apostprocess_nodes(nodes(), query_str=QUERY))
        names = [event.class_name() for event in seen if "ReRank" in event.class_name()]
        assert names == ["ReRankStartEvent", "ReRankEndEvent"] * 2
        assert [t for t, _ in calls.started] == [t for t, _ in calls.ended] == [CBEventType.RERANKING] * 2
        assert calls.started[0][1][EventPayload.QUERY_STR] == QUERY
        assert calls.ended[0][1][EventPayload.NODES] == results

    def test_no_callback_manager_is_one_without_handlers(self, rerank: BaseNodePostprocessor) -> None:
        silent = self.rerank_class(**{**self.rerank_params, "callback_manager": None})
        assert silent.postprocess_nodes(nodes(), query_str=QUERY)
        rerank.callback_manager = CallbackManager([])
        assert asyncio.run(rerank.apostprocess_nodes(nodes(), query_str=QUERY))

    def test_a_call_that_fails_has_its_end_event_too(self, rerank: BaseNodePostprocessor) -> None:
        rerank.callback_manager = CallbackManager([calls := CallbackLog()])
        with events() as seen:
            with pytest.raises(ValueError, match=r"(?i)query"):
                rerank.postprocess_nodes(nodes())
            with pytest.raises(ValueError, match=r"(?i)query"):
                asyncio.run(rerank.apostprocess_nodes(nodes()))
        names = [event.class_name() for event in seen if "ReRank" in event.class_name()]
        assert names == ["ReRankStartEvent", "ReRankEndEvent"] * 2
        assert [event.class_name() for event in seen].count("ExceptionEvent") == 2
        assert len(calls.started) == len(calls.ended) == 2
        assert all(EventPayload.EXCEPTION in payload for _, payload in calls.ended)


def nodes() -> list[NodeWithScore]:
    """Return one node per text of `TEXTS`, made anew, with all that a node may hold and a retrieval score."""
    return [NodeWithScore(node=_node(i, text), score=i / 10) for i, text in enumerate(TEXTS)]


def _node(number: int, text: str) -> TextNode:
    source = RelatedNodeInfo(node_id=f"document-{number}", metadata={"kinds": ["text"]})
    return TextNode(
        id_=f"node-{number}",
        text=text,
        embedding=[float(number), 1.0],
        metadata={"page": number, "places": [{"line": number}]},
        excluded_embed_metadata_keys=["places"],
        excluded_llm_metadata_keys=["places"],
        relationships={NodeRelationship.SOURCE: source},
    )


def _write_into(node: BaseNode) -> None:
    """Change everything inside a node that can be changed, as its owner may."""
    node.metadata["written by"] = "the caller"
    node.metadata["places"][0]["line"] = -1
    node.metadata["places"].append("more")
    node.excluded_embed_metadata_keys.append("page")
    node.excluded_llm_metadata_keys.append("page")
    source = node.relationships.pop(NodeRelationship.SOURCE)
    assert isinstance(source, RelatedNodeInfo)
    source.metadata["kinds"].append("picture")
    source.node_id = "another"
    assert node.embedding is not None
    node.embedding[0] = -1.0


def scores_by_id(results: Sequence[NodeWithScore]) -> dict[str, float | None]:
    """Return each node's score by its id."""
    return {result.node_id: result.score for result in results}


class CallbackLog(BaseCallbackHandler):
    """Callback events of a `CallbackManager`.

    Attributes:
        started, ended: type and payload of each event, in order.
    """

    def __init__(self) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self.started: list[tuple[CBEventType, dict[str, Any]]] = []
        self.ended: list[tuple[CBEventType, dict[str, Any]]] = []

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",  # noqa: ARG002
        **_: Any,
    ) -> str:
        """Note the start of an event."""
        self.started.append((event_type, {} if payload is None else payload))
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Note the end of an event."""
        self.ended.append((event_type, {} if payload is None else payload))

    def start_trace(self, trace_id: str | None = None) -> None:
        """Traces are not noted."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Traces are not noted."""


class _EventLog(BaseEventHandler):
    _seen: list[BaseEvent] = PrivateAttr(default_factory=list)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self._seen.append(event)


@contextmanager
def events() -> Iterator[list[BaseEvent]]:
    """Collect the instrumentation events of the process."""
    root = get_dispatcher()
    log = _EventLog()
    handlers = root.event_handlers
    root.event_handlers = [*handlers, log]
    try:
        yield log._seen
    finally:
        root.event_handlers = handlers
