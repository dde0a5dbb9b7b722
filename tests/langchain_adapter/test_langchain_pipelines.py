"""The adapters inside LangChain's own parts."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import (
    CrossEncoderReranker,
    DocumentCompressorPipeline,
)
from langchain_classic.storage import LocalFileStore
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_cross_encoder import Qwen3CrossEncoder, needs_cross_encoders
from langchain_qdrant import QdrantVectorStore
from langchain_qwen3_rag import SCORE_KEY, Qwen3Embeddings, Qwen3Reranker
from qdrant_client import QdrantClient
from qwen3_rag import Embedder, Reranker
from qwen3_rag.testing.recording import recording

QUERY = "What is bread made of?"
DOCUMENTS = [
    Document("Bread is made of flour, water and salt.", id="00000000-0000-0000-0000-000000000001"),
    Document("The sun is a star.", id="00000000-0000-0000-0000-000000000002", metadata={"topic": "sky"}),
    Document("Rivers flow into the sea.", id="00000000-0000-0000-0000-000000000003"),
]


@pytest.fixture
def embeddings(embedder: Embedder) -> Qwen3Embeddings:
    return Qwen3Embeddings(embedder=embedder)


@pytest.fixture
def store(embeddings: Qwen3Embeddings) -> InMemoryVectorStore:
    return InMemoryVectorStore.from_documents(DOCUMENTS, embeddings)


@pytest.fixture
def retriever(store: InMemoryVectorStore, reranker: Reranker) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(
        base_compressor=Qwen3Reranker(reranker=reranker, top_n=2),
        base_retriever=store.as_retriever(search_kwargs={"k": 3}),
    )


def test_what_is_no_document_is_named(reranker: Reranker) -> None:
    pair: Any = (DOCUMENTS[1], 0.5)  # as `similarity_search_with_score` gives it
    with pytest.raises(TypeError, match=r"documents\[1\] must be a Document, got tuple"):
        Qwen3Reranker(reranker=reranker).compress_documents([DOCUMENTS[0], pair], QUERY)


def expected_ranking(reranker: Reranker, top_n: int) -> list[tuple[str | None, float]]:
    ranking = reranker.rerank(QUERY, [document.page_content for document in DOCUMENTS], top_k=top_n)
    return [(DOCUMENTS[ranked.index].id, ranked.score) for ranked in ranking]


def test_a_vector_store_searches_with_the_core_s_vectors(
    store: InMemoryVectorStore, embedder: Embedder
) -> None:
    scores = embedder.embed_documents([d.page_content for d in DOCUMENTS]) @ embedder.embed_queries([QUERY])[0]
    found = store.similarity_search_with_score(QUERY, k=3)
    assert {d.id: s for d, s in found} == pytest.approx(
        {d.id: float(s) for d, s in zip(DOCUMENTS, scores, strict=True)}, abs=1e-5
    )


def test_a_compression_retriever_reranks(retriever: ContextualCompressionRetriever, reranker: Reranker) -> None:
    expected = expected_ranking(reranker, 2)
    for found in (retriever.invoke(QUERY), asyncio.run(retriever.ainvoke(QUERY))):
        assert [document.id for document in found] == [id_ for id_, _ in expected]
        assert [d.metadata[SCORE_KEY] for d in found] == pytest.approx([s for _, s in expected], abs=1e-6)


def test_a_retriever_s_own_documents_get_no_score(reranker: Reranker) -> None:
    # Keyword retrievers hand out the very objects that they have indexed.
    retriever = ContextualCompressionRetriever(
        base_compressor=Qwen3Reranker(reranker=reranker), base_retriever=RunnableLambda(lambda _: DOCUMENTS)
    )
    given = copy.deepcopy(DOCUMENTS)
    assert all(SCORE_KEY in document.metadata for document in retriever.invoke(QUERY))
    assert given == DOCUMENTS


def test_a_dumped_retriever_holds_no_weights(retriever: ContextualCompressionRetriever) -> None:
    retriever.invoke(QUERY)
    assert len(dumps(retriever)) < 20_000


def test_a_compressor_works_in_a_pipeline_of_compressors(reranker: Reranker) -> None:
    pipeline = DocumentCompressorPipeline(
        transformers=[Qwen3Reranker(reranker=reranker, top_n=n) for n in (2, 1)]
    )
    best = [id_ for id_, _ in expected_ranking(reranker, 1)]
    assert [document.id for document in pipeline.compress_documents(DOCUMENTS, QUERY)] == best
    kept = asyncio.run(pipeline.acompress_documents(DOCUMENTS, QUERY))
    assert [document.id for document in kept] == best


@needs_cross_encoders
def test_langchain_s_reranker_takes_the_cross_encoder(reranker: Reranker) -> None:
    compressor = CrossEncoderReranker(model=Qwen3CrossEncoder(reranker=reranker), top_n=2)
    kept = compressor.compress_documents(DOCUMENTS, QUERY)
    assert [document.id for document in kept] == [id_ for id_, _ in expected_ranking(reranker, 2)]


def chain(retriever: ContextualCompressionRetriever) -> Any:
    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    model = FakeListChatModel(responses=["Flour."])
    return {"context": retriever, "question": RunnablePassthrough()} | RunnablePassthrough.assign(
        answer=prompt | model | StrOutputParser()
    )


def test_a_chain_runs_in_every_way(retriever: ContextualCompressionRetriever, reranker: Reranker) -> None:
    made = chain(retriever)
    results = [
        made.invoke(QUERY),
        asyncio.run(made.ainvoke(QUERY)),
        *made.batch([QUERY, QUERY]),
        *asyncio.run(made.abatch([QUERY, QUERY])),
    ]
    best = [id_ for id_, _ in expected_ranking(reranker, 2)]
    for result in results:
        assert result["answer"] == "Flour."
        assert [document.id for document in result["context"]] == best


def test_a_cache_computes_documents_once_and_keeps_queries_apart(
    embeddings: Qwen3Embeddings, embedder: Embedder, tmp_path: Path
) -> None:
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings,
        LocalFileStore(str(tmp_path / "documents")),
        query_embedding_cache=LocalFileStore(str(tmp_path / "queries")),
        namespace="small-",
        key_encoder="sha256",
    )
    with recording(embedder) as record:
        for _ in range(2):
            assert cached.embed_documents(["bread"]) == embeddings_of(embedder, "bread", "document")
            assert [cached.embed_query("bread")] == embeddings_of(embedder, "bread", "query")
        computed_by_the_test = 4
        assert len(record.prompts) - computed_by_the_test == 2


def test_one_cache_for_both_mixes_them_up(
    embeddings: Qwen3Embeddings, embedder: Embedder, tmp_path: Path
) -> None:
    """Why docs/langchain.md tells to give queries a cache of their own: LangChain's key is the text alone."""
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, LocalFileStore(str(tmp_path)), query_embedding_cache=True, key_encoder="sha256"
    )
    cached.embed_documents(["bread"])
    assert [cached.embed_query("bread")] == embeddings_of(embedder, "bread", "document")


def embeddings_of(embedder: Embedder, text: str, role: Any) -> list[list[float]]:
    vectors: list[list[float]] = embedder.embed([text], role=role).vectors.tolist()
    return vectors


@pytest.fixture
def folder(embeddings: Qwen3Embeddings, tmp_path: Path) -> Path:
    """A Qdrant database in a folder, filled and closed again."""
    database = QdrantVectorStore.from_documents(
        DOCUMENTS, embeddings, path=str(tmp_path / "qdrant"), collection_name="pages"
    )
    database.client.close()
    return tmp_path / "qdrant"


def test_a_database_on_disk_is_searched_after_reopening(
    folder: Path, embeddings: Qwen3Embeddings, store: InMemoryVectorStore, reranker: Reranker
) -> None:
    client = QdrantClient(path=str(folder))
    reopened = QdrantVectorStore(client, "pages", embedding=embeddings)
    found = reopened.similarity_search(QUERY, k=3)
    assert [d.page_content for d in found] == [d.page_content for d in store.similarity_search(QUERY, k=3)]
    retriever = ContextualCompressionRetriever(
        base_compressor=Qwen3Reranker(reranker=reranker, top_n=2),
        base_retriever=reopened.as_retriever(),
    )
    texts = {document.id: document.page_content for document in DOCUMENTS}
    best = [texts[id_] for id_, _ in expected_ranking(reranker, 2)]
    assert [document.page_content for document in retriever.invoke(QUERY)] == best
    client.close()
