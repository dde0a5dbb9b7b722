"""The same job through the core and through each framework's adapter, on one set of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from haystack import Document as HaystackDocument
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from langchain_core.documents import Document
from langchain_qwen3_rag import SCORE_KEY, Qwen3Embeddings, Qwen3Reranker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import Embedder, Reranker

from benchmarks.texts import QUERY

Ways = Mapping[str, Callable[[], Any]]


def embedding_ways(embedder: Embedder, texts: list[str]) -> Ways:
    """Texts to vectors; the core comes first."""
    langchain = Qwen3Embeddings(embedder=embedder)
    llama_index = Qwen3Embedding(embedder=embedder)
    haystack = Qwen3DocumentEmbedder(embedder=embedder, progress_bar=False)

    def by_haystack() -> Any:
        found = haystack.run(documents=[HaystackDocument(content=text) for text in texts])["documents"]
        return [document.embedding for document in found]

    return {
        "core": lambda: embedder.embed_documents(texts),
        "LangChain": lambda: langchain.embed_documents(texts),
        "LlamaIndex": lambda: llama_index.get_text_embedding_batch(texts),
        "Haystack": by_haystack,
    }


def reranking_ways(reranker: Reranker, texts: list[str]) -> Ways:
    """One query and its texts to scores, best first."""
    langchain = Qwen3Reranker(reranker=reranker, top_n=None)
    llama_index = Qwen3Rerank(reranker=reranker, top_n=len(texts))
    haystack = Qwen3Ranker(reranker=reranker, top_k=len(texts))

    def by_llama_index() -> Any:
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
        return [node.score for node in llama_index.postprocess_nodes(nodes, query_str=QUERY)]

    def by_haystack() -> Any:
        documents = [HaystackDocument(content=text) for text in texts]
        return [document.score for document in haystack.run(query=QUERY, documents=documents)["documents"]]

    def by_langchain() -> Any:
        found = langchain.compress_documents([Document(text) for text in texts], QUERY)
        return [document.metadata[SCORE_KEY] for document in found]

    return {
        "core": lambda: [ranked.score for ranked in reranker.rerank(QUERY, texts)],
        "LangChain": by_langchain,
        "LlamaIndex": by_llama_index,
        "Haystack": by_haystack,
    }
