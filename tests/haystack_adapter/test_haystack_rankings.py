"""With models that were trained, the order of results can be told right from wrong."""

from __future__ import annotations

import pytest
from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from rankings import EMBEDDER, PASSAGES, QUESTIONS, RERANKER


@pytest.fixture(scope="module")
def retriever() -> InMemoryEmbeddingRetriever:
    documents = [Document(id=name, content=text) for name, text in PASSAGES.items()]
    store = InMemoryDocumentStore()
    store.write_documents(Qwen3DocumentEmbedder(**EMBEDDER).run(documents=documents)["documents"])
    return InMemoryEmbeddingRetriever(store)


@pytest.mark.parametrize(("question", "right"), QUESTIONS.items())
def test_the_right_passage_is_first_after_retrieval_and_after_reranking(
    retriever: InMemoryEmbeddingRetriever, question: str, right: str
) -> None:
    query = Qwen3TextEmbedder(**EMBEDDER).run(text=question)["embedding"]
    found = retriever.run(query_embedding=query)["documents"]
    assert found[0].id == right
    ranked = Qwen3Ranker(**RERANKER).run(query=question, documents=found[::-1])["documents"]
    assert ranked[0].id == right
