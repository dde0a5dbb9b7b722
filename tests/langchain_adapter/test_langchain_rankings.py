"""With models that were trained, the order of results can be told right from wrong."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_cross_encoder import Qwen3CrossEncoder, needs_cross_encoders
from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
from rankings import EMBEDDER, PASSAGES, QUESTIONS, RERANKER

DOCUMENTS = [Document(text, id=name) for name, text in PASSAGES.items()]


@pytest.fixture(scope="module")
def store() -> InMemoryVectorStore:
    return InMemoryVectorStore.from_documents(DOCUMENTS, Qwen3Embeddings(**EMBEDDER))


@pytest.mark.parametrize(("question", "right"), QUESTIONS.items())
def test_the_right_passage_is_first_after_retrieval_and_after_reranking(
    store: InMemoryVectorStore, question: str, right: str
) -> None:
    found = store.similarity_search(question, k=len(DOCUMENTS))
    assert found[0].id == right
    with Qwen3Reranker(**RERANKER) as reranker:
        assert reranker.compress_documents(found[::-1], question)[0].id == right


@needs_cross_encoders
@pytest.mark.parametrize(("question", "right"), QUESTIONS.items())
def test_the_right_passage_has_the_highest_score(question: str, right: str) -> None:
    with Qwen3CrossEncoder(**RERANKER) as encoder:
        scores = encoder.score([(question, document.page_content) for document in DOCUMENTS])
    assert DOCUMENTS[scores.index(max(scores))].id == right
