"""The demo's search as a LangChain user would write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from qwen3_rag.demo.searches import Found, Models, pieces
from qwen3_rag.plugins import ADAPTERS, load_plugin
from qwen3_rag.usage import Usage

LINES: Final = """\
from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
embeddings, reranker = Qwen3Embeddings({embedding}), Qwen3Reranker({reranking_first}top_n=5)
best = reranker.compress_documents(store.similarity_search(question, k=20), question)"""


class LangChainSearch:
    """`InMemoryVectorStore` on `Qwen3Embeddings`, then `Qwen3Reranker`."""

    package = "langchain-core"

    def __init__(self, models: Models) -> None:
        self._embeddings: Any = load_plugin(ADAPTERS, "langchain-embeddings")(
            model=models.embedding, device=models.device
        )
        self._reranker: Any = load_plugin(ADAPTERS, "langchain-reranker")(
            model=models.reranking, device=models.device, top_n=None
        )
        self._store = InMemoryVectorStore(self._embeddings)
        self._documents: list[Document] = []

    def index(self, passages: Sequence[str]) -> Usage:
        self._documents = [Document(text, id=str(number)) for number, text in enumerate(passages)]
        for piece in pieces(self._documents):
            self._store.add_documents(list(piece))
        usage: Usage = self._embeddings.usage
        return usage

    def retrieve(self, question: str, count: int) -> tuple[list[Found], Usage]:
        before: Usage = self._embeddings.usage
        found = self._store.similarity_search_with_score(question, k=count)
        return [Found(int(d.id or ""), float(cosine)) for d, cosine in found], self._embeddings.usage - before

    def rerank(self, question: str, found: Sequence[Found]) -> tuple[list[Found], Usage]:
        before: Usage = self._reranker.usage
        best = self._reranker.compress_documents([self._documents[item.passage] for item in found], question)
        ranking = [Found(int(d.id), float(d.metadata["relevance_score"])) for d in best]
        return ranking, self._reranker.usage - before

    def close(self) -> None:
        self._embeddings.close()
        self._reranker.close()


make = LangChainSearch
