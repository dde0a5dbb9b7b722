"""What a reranking node postprocessor owes its users."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    ImageNode,
    NodeWithScore,
    QueryBundle,
    TextNode,
)

from qwen3_rag.testing.adapter import CONCURRENT_CALLS, AdapterContract
from qwen3_rag.testing.llama_index.event_log import CallbackLog, events
from qwen3_rag.testing.llama_index.samples import QUERY, TEXTS, nodes, scores_by_id, write_into


class RerankContract(AdapterContract):
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
        assert reversed_order == pytest.approx(together, abs=self.tolerance)
        assert alone == pytest.approx(together, abs=self.tolerance)

    def test_nodes_given_are_not_changed(self, rerank: BaseNodePostprocessor) -> None:
        given = nodes()
        before = [node.to_dict() for node in given]
        results = rerank.postprocess_nodes(given, query_str=QUERY)
        for result in results:
            result.score = -1.0
            write_into(result.node)
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
        assert scores_by_id(results) == pytest.approx(scores_by_id(expected), abs=self.tolerance)

    def test_concurrent_calls_let_the_event_loop_run(self, rerank: BaseNodePostprocessor) -> None:
        rerank.postprocess_nodes(nodes(), query_str="load")
        call = partial(rerank.apostprocess_nodes, nodes(), query_str=QUERY)
        self.check_loop_turns(rerank, call, CONCURRENT_CALLS)

    def test_pickle_and_deepcopy_carry_the_configuration_only(self, rerank: BaseNodePostprocessor) -> None:
        self.check_copies(rerank, lambda r: scores_by_id(r.postprocess_nodes(nodes(), query_str=QUERY)))

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
