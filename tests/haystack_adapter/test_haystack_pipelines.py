"""Indexing and query pipelines on one set of weights, as users build, save, load and close them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from qwen3_rag import Embedder, Reranker

TEXTS = [
    "The sun is a star.",
    "Bread is baked\nfrom flour.",
    "Light takes eight minutes.",
    "Rivers reach the sea.",
]
QUERY = "How long does light take?"


def indexing(options: dict[str, Any], index: str) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", Qwen3DocumentEmbedder(**options, progress_bar=False))
    pipeline.add_component("writer", DocumentWriter(InMemoryDocumentStore(index=index)))
    pipeline.connect("embedder.documents", "writer.documents")
    return pipeline


def querying(embedder_options: dict[str, Any], ranker_options: dict[str, Any], index: str) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", Qwen3TextEmbedder(**embedder_options))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(InMemoryDocumentStore(index=index), top_k=3))
    pipeline.add_component("ranker", Qwen3Ranker(**ranker_options, top_k=2))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def ask(pipeline: Pipeline) -> dict[str, Any]:
    return pipeline.run({"embedder": {"text": QUERY}, "ranker": {"query": QUERY}})["ranker"]


def ask_async(pipeline: Pipeline) -> dict[str, Any]:
    inputs = {"embedder": {"text": QUERY}, "ranker": {"query": QUERY}}
    return asyncio.run(pipeline.run_async(inputs))["ranker"]


def expected(embedder: Embedder, reranker: Reranker) -> list[tuple[str, float]]:
    """The same with the core alone."""
    similarity = embedder.embed_documents(TEXTS) @ embedder.embed_queries([QUERY])[0]
    found = [TEXTS[i] for i in (-similarity).argsort()[:3]]
    return [(ranked.text, ranked.score) for ranked in reranker.rerank(QUERY, found, top_k=2)]


@pytest.mark.parametrize("answer", [ask, ask_async])
@pytest.mark.parametrize("saved", [False, True])
def test_pipelines_find_what_the_core_finds(
    answer: Any,
    saved: bool,
    embedder: Embedder,
    reranker: Reranker,
    embedder_options: dict[str, Any],
    ranker_options: dict[str, Any],
) -> None:
    index = f"{answer.__name__}-{saved}"
    first, second = indexing(embedder_options, index), querying(embedder_options, ranker_options, index)
    if saved:
        first, second = Pipeline.loads(first.dumps()), Pipeline.loads(second.dumps())
    first.run({"embedder": {"documents": [Document(content=text) for text in TEXTS]}})
    documents = answer(second)["documents"]
    assert [document.content for document in documents] == [text for text, _ in expected(embedder, reranker)]
    assert [d.score for d in documents] == pytest.approx([s for _, s in expected(embedder, reranker)], abs=1e-5)


def test_saved_pipelines_share_one_set_of_weights(
    embedder_options: dict[str, Any], ranker_options: dict[str, Any]
) -> None:
    first = Pipeline.loads(indexing(embedder_options, "shared").dumps())
    second = Pipeline.loads(querying(embedder_options, ranker_options, "shared").dumps())
    first.warm_up()
    second.warm_up()
    ours, theirs = first.get_component("embedder"), second.get_component("embedder")
    assert ours.embedder.backend is not None
    assert ours.embedder.backend is theirs.embedder.backend


def test_closing_a_pipeline_leaves_the_others_their_weights(embedder_options: dict[str, Any]) -> None:
    options = {**embedder_options, "token_budget": 1234}  # an engine of its own
    staying, closing = Qwen3TextEmbedder(**options), indexing(options, "closing")
    before = staying.run(QUERY)["embedding"]
    backend = staying.embedder.backend
    closing.run({"embedder": {"documents": [Document(content="a")]}})
    closing.close()
    assert closing.get_component("embedder").embedder.backend is None
    assert staying.embedder.backend is backend
    assert staying.run(QUERY)["embedding"] == before


@pytest.mark.parametrize("close", [Pipeline.close, lambda pipeline: asyncio.run(pipeline.close_async())])
def test_closed_pipeline_runs_again(
    close: Any, embedder_options: dict[str, Any], ranker_options: dict[str, Any]
) -> None:
    pipeline = querying({**embedder_options, "token_budget": 2345}, ranker_options, "again")
    pipeline.warm_up()
    close(pipeline)
    close(pipeline)
    assert pipeline.get_component("embedder").embedder.backend is None
    assert ask(pipeline)["documents"] == []
    pipeline.close()


def test_component_that_was_given_stays_open(embedder_options: dict[str, Any]) -> None:
    with Embedder(**embedder_options) as given:
        component = Qwen3TextEmbedder(embedder=given)
        component.warm_up()
        component.close()
        assert component.embedder is given
        assert given.backend is not None
        component.run(QUERY)


def test_async_warm_up_loads(embedder_options: dict[str, Any]) -> None:
    component = Qwen3TextEmbedder(**embedder_options)
    asyncio.run(component.warm_up_async())
    assert component.embedder.backend is not None


def test_weights_that_cannot_be_had_are_an_error_that_names_the_model(tmp_path: Any) -> None:
    component = Qwen3TextEmbedder(model=str(tmp_path / "nothing"))
    with pytest.raises(OSError, match="nothing"):
        component.warm_up()
