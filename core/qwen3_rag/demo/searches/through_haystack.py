"""The demo's search as a Haystack user would write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from qwen3_rag.demo.searches import Found, Models, pieces
from qwen3_rag.plugins import ADAPTERS, load_plugin
from qwen3_rag.usage import Usage

LINES: Final = (
    "from haystack_integrations.components.embedders.qwen3_rag import "
    "Qwen3DocumentEmbedder, Qwen3TextEmbedder\n"
    "from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker\n"
    "documents, query, ranker = "
    "Qwen3DocumentEmbedder({embedding}), Qwen3TextEmbedder({embedding}), Qwen3Ranker({reranking})"
)


class HaystackSearch:
    """`InMemoryEmbeddingRetriever` on `Qwen3DocumentEmbedder` and `Qwen3TextEmbedder`, then `Qwen3Ranker`."""

    package = "haystack-ai"

    def __init__(self, models: Models) -> None:
        embedding = {"model": models.embedding, "device": models.device}
        self._documents_embedder: Any = load_plugin(ADAPTERS, "haystack-document-embedder")(
            **embedding, progress_bar=False
        )
        self._text_embedder: Any = load_plugin(ADAPTERS, "haystack-text-embedder")(**embedding)
        self._ranker: Any = load_plugin(ADAPTERS, "haystack-ranker")(
            model=models.reranking, device=models.device
        )
        self._store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        self._retriever = InMemoryEmbeddingRetriever(self._store)
        self._documents: list[Document] = []

    def index(self, passages: Sequence[str]) -> Usage:
        self._documents = [Document(id=str(number), content=text) for number, text in enumerate(passages)]
        usage = Usage()
        for piece in pieces(self._documents):
            embedded = self._documents_embedder.run(documents=list(piece))
            self._store.write_documents(embedded["documents"])
            usage += _usage(embedded["meta"])
        return usage

    def retrieve(self, question: str, count: int) -> tuple[list[Found], Usage]:
        embedded = self._text_embedder.run(text=question)
        found = self._retriever.run(query_embedding=embedded["embedding"], top_k=count)
        return _found(found["documents"]), _usage(embedded["meta"])

    def rerank(self, question: str, found: Sequence[Found]) -> tuple[list[Found], Usage]:
        documents = [self._documents[item.passage] for item in found]
        ranked = self._ranker.run(query=question, documents=documents)
        return _found(ranked["documents"]), _usage(ranked["meta"])

    def close(self) -> None:
        self._documents_embedder.close()
        self._text_embedder.close()
        self._ranker.close()


make = HaystackSearch


def _found(documents: Sequence[Document]) -> list[Found]:
    return [Found(int(document.id), float(document.score or 0.0)) for document in documents]


def _usage(meta: Mapping[str, Any]) -> Usage:
    fields = ("texts", "prompt_tokens", "computed_tokens", "truncated_texts")
    return Usage(**{name: meta["usage"][name] for name in fields})
