"""The demo's search with nothing but this package and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.demo.searches import Found, Models, pieces
from qwen3_rag.embedder import Embedder
from qwen3_rag.ranking import rank
from qwen3_rag.reranker import Reranker
from qwen3_rag.usage import Usage

LINES: Final = """\
from qwen3_rag import Embedder, Reranker
vectors = Embedder({embedding}).embed_documents(texts)
ranking = Reranker({reranking}).rerank(question, texts, top_k=5)"""


class CoreSearch:
    """Cosines by one matrix product."""

    package = "qwen3-rag"

    def __init__(self, models: Models) -> None:
        self._embedder = Embedder(models.embedding, device=models.device)
        self._reranker = Reranker(models.reranking, device=models.device)
        self._passages: Sequence[str] = ()
        self._vectors: NDArray[np.generic] = np.zeros((0, 0), np.float32)

    def index(self, passages: Sequence[str]) -> Usage:
        self._passages = passages
        usage, vectors = Usage(), []
        for piece in pieces(passages):
            found, more = self._embedder.embed(piece, role="document")
            vectors.append(found)
            usage += more
        self._vectors = np.concatenate(vectors)
        return usage

    def retrieve(self, question: str, count: int) -> tuple[list[Found], Usage]:
        query, usage = self._embedder.embed([question], role="query")
        cosines = self._vectors @ query[0]
        nearest = np.argsort(-cosines, kind="stable")[:count]
        return [Found(int(i), float(cosines[i])) for i in nearest], usage

    def rerank(self, question: str, found: Sequence[Found]) -> tuple[list[Found], Usage]:
        scores, usage = self._reranker.evaluate([(question, self._passages[item.passage]) for item in found])
        ranking = rank(scores, [""] * len(found), None)
        return [Found(found[item.index].passage, item.score) for item in ranking], usage

    def close(self) -> None:
        self._embedder.close()
        self._reranker.close()


make = CoreSearch
