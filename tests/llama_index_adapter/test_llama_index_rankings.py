"""With models that were trained, the order of results can be told right from wrong."""

from __future__ import annotations

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from rankings import EMBEDDER, PASSAGES, QUESTIONS, RERANKER


@pytest.fixture(scope="module")
def retriever() -> BaseRetriever:
    nodes = [TextNode(id_=name, text=text) for name, text in PASSAGES.items()]
    index = VectorStoreIndex(nodes, embed_model=Qwen3Embedding(**EMBEDDER))
    return index.as_retriever(similarity_top_k=len(nodes))


@pytest.mark.parametrize(("question", "right"), QUESTIONS.items())
def test_the_right_passage_is_first_after_retrieval_and_after_reranking(
    retriever: BaseRetriever, question: str, right: str
) -> None:
    found = retriever.retrieve(question)
    assert found[0].node_id == right
    rerank = Qwen3Rerank(**RERANKER)
    assert rerank.postprocess_nodes(found[::-1], query_str=question)[0].node_id == right
    rerank.close()
