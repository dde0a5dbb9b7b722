"""The demo's search as a LlamaIndex user would write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode

from qwen3_rag.demo.searches import Found, Models
from qwen3_rag.plugins import ADAPTERS, load_plugin
from qwen3_rag.usage import Usage

LINES: Final = """\
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
embed_model, rerank = Qwen3Embedding({embedding}), Qwen3Rerank({reranking_first}top_n=5)"""


class LlamaIndexSearch:
    """`VectorStoreIndex` on `Qwen3Embedding`, then `Qwen3Rerank`."""

    package = "llama-index-core"

    def __init__(self, models: Models) -> None:
        self._embedding: Any = load_plugin(ADAPTERS, "llama-index-embedding")(
            model=models.embedding, device=models.device
        )
        self._rerank: Any = load_plugin(ADAPTERS, "llama-index-rerank")(
            model=models.reranking, device=models.device, top_n=None
        )
        self._nodes: list[TextNode] = []
        self._index: VectorStoreIndex | None = None

    def index(self, passages: Sequence[str]) -> Usage:
        self._nodes = [TextNode(id_=str(number), text=text) for number, text in enumerate(passages)]
        self._index = VectorStoreIndex(self._nodes, embed_model=self._embedding)
        usage: Usage = self._embedding.usage
        return usage

    def retrieve(self, question: str, count: int) -> tuple[list[Found], Usage]:
        if self._index is None:
            raise RuntimeError("index passages before you retrieve")
        before: Usage = self._embedding.usage
        found = self._index.as_retriever(similarity_top_k=count).retrieve(question)
        return _found(found), self._embedding.usage - before

    def rerank(self, question: str, found: Sequence[Found]) -> tuple[list[Found], Usage]:
        before: Usage = self._rerank.usage
        nodes = [NodeWithScore(node=self._nodes[item.passage], score=item.score) for item in found]
        return _found(self._rerank.postprocess_nodes(nodes, query_str=question)), self._rerank.usage - before

    def close(self) -> None:
        self._embedding.close()
        self._rerank.close()


make = LlamaIndexSearch


def _found(nodes: Sequence[NodeWithScore]) -> list[Found]:
    return [Found(int(node.node.node_id), float(node.get_score())) for node in nodes]
