"""What `Qwen3Rerank` does beyond the contract of all rerankers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from llama_index.core.callbacks import CallbackManager, EventPayload
from llama_index.core.schema import (
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    TextNode,
)
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import DeadlineExceededError, Reranker
from qwen3_rag.testing.llama_index import QUERY, CallbackLog, events, nodes
from qwen3_rag.testing.recording import recording


def test_two_nodes_come_back_by_default(reranker: Reranker) -> None:
    assert len(Qwen3Rerank(reranker=reranker).postprocess_nodes(nodes(), query_str=QUERY)) == 2


def test_scores_are_those_of_the_core(rerank: Qwen3Rerank) -> None:
    given = nodes()
    texts = [node.node.get_content(MetadataMode.EMBED) for node in given]
    ranking = rerank.reranker.rerank(QUERY, texts)
    results = rerank.postprocess_nodes(given, query_str=QUERY)
    assert [(n.node_id, n.score) for n in results] == [(given[r.index].node_id, r.score) for r in ranking]


def test_nothing_is_loaded_for_nothing(reranking_checkpoint: Path) -> None:
    rerank = Qwen3Rerank(model=str(reranking_checkpoint), top_n=0)
    assert rerank.postprocess_nodes(nodes(), query_str=QUERY) == []
    assert asyncio.run(rerank.apostprocess_nodes([], query_str=QUERY)) == []
    assert rerank.reranker.backend is None


def test_negative_top_n_is_refused() -> None:
    with pytest.raises(ValueError, match="top_n"):
        Qwen3Rerank(top_n=-1)


@pytest.mark.parametrize("score", [0.0, 0.25, None])
def test_the_retrieval_score_is_kept_on_request(score: float | None, reranker: Reranker) -> None:
    given = NodeWithScore(node=TextNode(text="moon", metadata={"page": 1}), score=score)
    keeping = Qwen3Rerank(reranker=reranker, keep_retrieval_score=True)
    (kept,) = keeping.postprocess_nodes([given], query_str=QUERY)
    (plain,) = Qwen3Rerank(reranker=reranker).postprocess_nodes([given], query_str=QUERY)
    assert kept.metadata == {"page": 1, "retrieval_score": score}
    assert plain.metadata == given.metadata == {"page": 1}
    assert kept.score == plain.score != score == given.score


def test_a_kept_score_is_shown_to_no_model(reranker: Reranker) -> None:
    keeping = Qwen3Rerank(reranker=reranker, keep_retrieval_score=True)
    results = keeping.postprocess_nodes(keeping.postprocess_nodes(nodes(), query_str=QUERY), query_str=QUERY)
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        assert "retrieval_score" not in results[0].get_content(mode)
    assert results[0].node.excluded_llm_metadata_keys == ["places", "retrieval_score"]


def test_a_node_without_text_is_scored_as_an_empty_document(rerank: Qwen3Rerank) -> None:
    image = NodeWithScore(node=ImageNode(image_url="https://example.org/moon.png"))
    (result,) = rerank.postprocess_nodes([image], query_str=QUERY)
    assert result.score == rerank.reranker.score(QUERY, [""])[0]


def test_results_keep_the_kind_and_relations_of_their_nodes(rerank: Qwen3Rerank) -> None:
    image = ImageNode(text="moon", image_url="https://example.org/moon.png", embedding=[0.5])
    (result,) = rerank.postprocess_nodes([NodeWithScore(node=image)], query_str=QUERY)
    assert type(result.node) is ImageNode
    assert result.node == image
    assert result.node is not image


def test_other_objects_in_a_node_are_not_copied(rerank: Qwen3Rerank) -> None:
    retriever = object()
    node = IndexNode(text="moon", index_id="i", obj=retriever, metadata={"handle": retriever})
    (result,) = rerank.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    assert isinstance(result.node, IndexNode)
    assert result.node.obj is retriever
    assert result.node.metadata["handle"] is retriever


def test_the_media_of_a_node_are_the_copys_own(rerank: Qwen3Rerank) -> None:
    node = Node(text_resource=MediaResource(text="moon", embeddings={"dense": [0.5]}))
    (result,) = rerank.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    assert isinstance(result.node, Node)
    result.node.text_resource.text = "sun"
    result.node.text_resource.embeddings["dense"].append(1.0)
    assert (node.text_resource.text, node.text_resource.embeddings) == ("moon", {"dense": [0.5]})


def test_a_model_that_fails_ends_its_events(reranking_checkpoint: Path) -> None:
    rerank = Qwen3Rerank(model=str(reranking_checkpoint), device="cpu", timeout=1e-9)
    rerank.callback_manager = CallbackManager([calls := CallbackLog()])
    with events() as seen, pytest.raises(DeadlineExceededError):
        rerank.postprocess_nodes(nodes(), query_str=QUERY)
    names = ["ReRankStartEvent", "ExceptionEvent", "ReRankEndEvent"]
    assert [e.class_name() for e in seen if e.class_name() in names] == names
    assert isinstance(calls.ended[0][1][EventPayload.EXCEPTION], DeadlineExceededError)


def test_a_cancelled_call_ends_its_events(rerank: Qwen3Rerank) -> None:
    async def cancel() -> None:
        task = asyncio.create_task(rerank.apostprocess_nodes(nodes(), query_str=QUERY))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with events() as seen, pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    names = [event.class_name() for event in seen if "ReRank" in event.class_name()]
    assert names == ["ReRankStartEvent", "ReRankEndEvent"]


def test_events_show_nodes_as_they_came(rerank: Qwen3Rerank) -> None:
    with events() as seen:
        rerank.postprocess_nodes(nodes(), query_str=QUERY)
    start = next(e for e in seen if e.class_name() == "ReRankStartEvent")
    assert [n.score for n in start.nodes] == [n.score for n in nodes()]
    assert (start.top_n, start.model_name) == (len(nodes()), rerank.model)


def test_no_tokens_are_computed_for_top_n_0(reranker: Reranker) -> None:
    with recording(reranker) as recorded:
        Qwen3Rerank(reranker=reranker, top_n=0).postprocess_nodes(nodes(), query_str=QUERY)
    assert recorded.rounds == []
