"""The three frameworks' adapters behind one shape: options -> vectors and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from haystack import Document as HaystackDocument
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from langchain_core.documents import Document
from langchain_qwen3_rag import SCORE_KEY, Qwen3CrossEncoder, Qwen3Embeddings, Qwen3Reranker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import Embedder, Reranker

Vectors = Callable[[dict[str, Any], str, Sequence[str]], tuple[np.ndarray, np.ndarray]]
Scores = Callable[[dict[str, Any], str, Sequence[str]], list[tuple[str, float]]]


def core_vectors(options: dict[str, Any], query: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    with Embedder(**options) as embedder:
        return embedder.embed_queries([query])[0], embedder.embed_documents(texts)


def langchain_vectors(
    options: dict[str, Any], query: str, texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    with Qwen3Embeddings(**options) as embeddings:
        found = embeddings.embed_query(query), embeddings.embed_documents(list(texts))
    return np.array(found[0], np.float32), np.array(found[1], np.float32)


def llama_index_vectors(
    options: dict[str, Any], query: str, texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    embedding = Qwen3Embedding(**options)
    found = embedding.get_query_embedding(query), embedding.get_text_embedding_batch(list(texts))
    embedding.close()
    return np.array(found[0], np.float32), np.array(found[1], np.float32)


def haystack_vectors(
    options: dict[str, Any], query: str, texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    text, documents = Qwen3TextEmbedder(**options), Qwen3DocumentEmbedder(**options)
    first = text.run(text=query)["embedding"]
    rest = documents.run(documents=[HaystackDocument(content=t) for t in texts])["documents"]
    text.close()
    documents.close()
    return np.array(first, np.float32), np.array([d.embedding for d in rest], np.float32)


def core_ranking(options: dict[str, Any], query: str, texts: Sequence[str]) -> list[tuple[str, float]]:
    with Reranker(**options) as reranker:
        return [(r.text, r.score) for r in reranker.rerank(query, texts)]


def langchain_ranking(options: dict[str, Any], query: str, texts: Sequence[str]) -> list[tuple[str, float]]:
    with Qwen3Reranker(top_n=None, **options) as reranker:
        found = reranker.compress_documents([Document(text) for text in texts], query)
        return [(d.page_content, d.metadata[SCORE_KEY]) for d in found]


def langchain_cross_encoding(
    options: dict[str, Any], query: str, texts: Sequence[str]
) -> list[tuple[str, float]]:
    with Qwen3CrossEncoder(**options) as encoder:
        scores = encoder.score([(query, text) for text in texts])
    return sorted(zip(texts, scores, strict=True), key=lambda pair: -pair[1])


def llama_index_ranking(options: dict[str, Any], query: str, texts: Sequence[str]) -> list[tuple[str, float]]:
    rerank = Qwen3Rerank(top_n=len(texts), **options)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    found = rerank.postprocess_nodes(nodes, query_str=query)
    rerank.close()
    return [(node.node.get_content(), node.score or 0.0) for node in found]


def haystack_ranking(options: dict[str, Any], query: str, texts: Sequence[str]) -> list[tuple[str, float]]:
    ranker = Qwen3Ranker(top_k=len(texts), **options)
    found = ranker.run(query=query, documents=[HaystackDocument(content=t) for t in texts])["documents"]
    ranker.close()
    return [(d.content or "", d.score or 0.0) for d in found]


VECTORS: dict[str, Vectors] = {
    "langchain": langchain_vectors,
    "llama-index": llama_index_vectors,
    "haystack": haystack_vectors,
}
RANKINGS: dict[str, Scores] = {
    "langchain": langchain_ranking,
    "langchain-cross-encoder": langchain_cross_encoding,
    "llama-index": llama_index_ranking,
    "haystack": haystack_ranking,
}
