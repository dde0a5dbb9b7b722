"""The adapters in LlamaIndex's own indexes, pipelines, engines and stores."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.embeddings import resolve_embed_model
from llama_index.core.embeddings.loading import RECOGNIZED_EMBEDDINGS, load_embed_model
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import Document, MetadataMode, TextNode, TransformComponent
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag.testing.llama_index import QUERY, TEXTS
from qwen3_rag.testing.recording import recording
from transformers import BitsAndBytesConfig

DOCUMENTS = [Document(id_=f"doc-{i}", text=text, metadata={"page": i}) for i, text in enumerate(TEXTS)]


@pytest.fixture
def index(embedding: Qwen3Embedding) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(DOCUMENTS, embed_model=embedding)


def best_ids(rerank: Qwen3Rerank, index: VectorStoreIndex) -> list[str]:
    found = index.as_retriever(similarity_top_k=len(TEXTS)).retrieve(QUERY)
    return [node.node_id for node in rerank.postprocess_nodes(found, query_str=QUERY)]


def test_an_index_retrieves_by_the_query_with_its_instruction(
    index: VectorStoreIndex, embedding: Qwen3Embedding
) -> None:
    found = index.as_retriever(similarity_top_k=5).retrieve(QUERY)
    query = embedding.get_query_embedding(QUERY)
    expected = {
        node.node_id: embedding.similarity(query, embedding.get_text_embedding(node.get_content("embed")))
        for node in found
    }
    assert {node.node_id: node.score for node in found} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_query_engine_retrieves_and_reranks(
    is_async: bool, index: VectorStoreIndex, rerank: Qwen3Rerank
) -> None:
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=5),
        llm=MockLLM(),
        node_postprocessors=[rerank.model_copy(update={"top_n": 3})],
    )
    answer = asyncio.run(engine.aquery(QUERY)) if is_async else engine.query(QUERY)
    assert str(answer)
    assert [node.node_id for node in answer.source_nodes] == best_ids(rerank, index)[:3]


def test_concurrent_queries_of_an_engine_share_batches(index: VectorStoreIndex, rerank: Qwen3Rerank) -> None:
    engine = index.as_query_engine(llm=MockLLM(), node_postprocessors=[rerank])

    async def ask() -> None:
        await asyncio.gather(*(engine.aquery(f"{QUERY} {i}") for i in range(20)))

    with recording(rerank.reranker, calls=20) as recorded:
        asyncio.run(ask())
    assert len(recorded.rounds) < 10


def test_a_persisted_index_answers_as_before(
    index: VectorStoreIndex, embedding: Qwen3Embedding, tmp_path: Path
) -> None:
    before = index.as_retriever(similarity_top_k=3).retrieve(QUERY)
    index.storage_context.persist(str(tmp_path))
    storage = StorageContext.from_defaults(persist_dir=str(tmp_path))
    with recording(embedding.embedder) as recorded:
        loaded = load_index_from_storage(storage, embed_model=embedding)
        after = loaded.as_retriever(similarity_top_k=3).retrieve(QUERY)
    assert [(n.node_id, n.score) for n in after] == [(n.node_id, n.score) for n in before]
    assert len(recorded.prompts) == 1


def pipeline(embedding: Qwen3Embedding, **options: Any) -> IngestionPipeline:
    return IngestionPipeline(transformations=[SentenceSplitter(), embedding], **options)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_pipeline_embeds_what_nodes_show_embedding_models(is_async: bool, embedding: Qwen3Embedding) -> None:
    run = pipeline(embedding)
    nodes = asyncio.run(run.arun(documents=DOCUMENTS)) if is_async else run.run(documents=DOCUMENTS)
    texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
    assert [node.embedding for node in nodes] == embedding.get_text_embedding_batch(texts)
    assert all(document.embedding is None for document in DOCUMENTS)


def test_a_pipelines_cache_knows_the_settings(embedding: Qwen3Embedding, tmp_path: Path) -> None:
    cache = IngestionCache()
    first = pipeline(embedding, cache=cache).run(documents=DOCUMENTS)
    cache.persist(str(tmp_path / "cache.json"))
    loaded = IngestionCache.from_persist_path(str(tmp_path / "cache.json"))
    with recording(embedding.embedder) as recorded:
        again = pipeline(embedding.model_copy(), cache=loaded).run(documents=DOCUMENTS)
    assert recorded.prompts == []
    assert [node.embedding for node in again] == [node.embedding for node in first]
    short = pipeline(embedding.model_copy(update={"dimensions": 32}), cache=loaded).run(documents=DOCUMENTS)
    assert {len(node.embedding or []) for node in short} == {32}


def test_a_pipelines_cache_tells_quantisations_apart() -> None:
    class Step(TransformComponent):
        """A user's, which works with the embedding model."""

        embedding: Qwen3Embedding

        def __call__(self, nodes: Any, **_: Any) -> Any:
            return self.embedding(nodes)

    def keys(threshold: float) -> list[str]:
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=threshold)
        kwargs = {"quantization_config": config}
        embedding = Qwen3Embedding(model="demo", model_kwargs=kwargs)
        return [get_transformation_hash([], step) for step in (embedding, Step(embedding=embedding))]

    four, six = keys(4.0), keys(6.0)
    assert len({*four, *six}) == 4
    assert four == keys(4.0)


@pytest.fixture
def settings() -> Iterator[None]:
    yield
    Settings._embed_model = None


@pytest.mark.usefixtures("settings")
def test_settings_take_it_as_the_embedding_model(embedding: Qwen3Embedding) -> None:
    Settings.embed_model = embedding
    assert Settings.embed_model is resolve_embed_model(embedding) is embedding
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS])
    assert len(index.as_retriever(similarity_top_k=2).retrieve(QUERY)) == 2


def test_the_frameworks_loader_knows_us_once_told(
    embedding: Qwen3Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="Qwen3Embedding"):
        load_embed_model(embedding.to_dict())
    monkeypatch.setitem(RECOGNIZED_EMBEDDINGS, Qwen3Embedding.class_name(), Qwen3Embedding)
    assert load_embed_model(embedding.to_dict()).to_dict() == embedding.to_dict()


class Spans(SimpleSpanHandler):
    """Names of finished spans."""

    def names(self) -> list[str]:
        return [span.id_.rsplit("-", 5)[0] for span in self.completed_spans]


@pytest.fixture
def spans() -> Iterator[Spans]:
    handler = Spans()
    get_dispatcher().add_span_handler(handler)
    yield handler
    get_dispatcher().span_handlers.remove(handler)


def test_each_call_is_one_span(spans: Spans, embedding: Qwen3Embedding, rerank: Qwen3Rerank) -> None:
    async def ask() -> None:
        await embedding.aget_query_embedding(QUERY)
        await embedding.aget_text_embedding_batch(TEXTS, show_progress=True)
        await rerank.apostprocess_nodes([], query_str=QUERY)

    embedding.get_query_embedding(QUERY)
    embedding.get_text_embedding_batch(TEXTS, show_progress=True)
    rerank.postprocess_nodes([], query_str=QUERY)
    asyncio.run(ask())
    for name in ("get_query_embedding", "get_text_embedding_batch"):
        assert spans.names().count(f"Qwen3Embedding.{name}") == 1
        assert spans.names().count(f"Qwen3Embedding.a{name}") == 1
    assert not [name for name in spans.names() if name.startswith("BaseEmbedding")]
    for name in ("Qwen3Rerank._postprocess_nodes", "Qwen3Rerank._apostprocess_nodes"):
        assert spans.names().count(name) == 1


def test_signatures_are_those_of_the_framework() -> None:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    names = ["get_query_embedding", "get_text_embedding_batch", "get_agg_embedding_from_queries"]
    for name in [*names, *(f"a{name}" for name in names)]:
        ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (Qwen3Embedding, BaseEmbedding))
        # Older releases have no `**kwargs` everywhere.
        assert list(ours.parameters)[: len(theirs.parameters)] == list(theirs.parameters)
