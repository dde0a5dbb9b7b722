"""Every adapter, and the smallest use of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from haystack import Document as HaystackDocument
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from langchain_core.documents import Document
from langchain_qwen3_rag import Qwen3CrossEncoder, Qwen3Embeddings, Qwen3Reranker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from pydantic import BaseModel

USES: dict[Any, Callable[[Any], Any]] = {
    Qwen3Embeddings: lambda a: a.embed_query("q"),
    Qwen3Reranker: lambda a: a.compress_documents([Document("d")], "q"),
    Qwen3CrossEncoder: lambda a: a.score([("q", "d")]),
    Qwen3Embedding: lambda a: a.get_query_embedding("q"),
    Qwen3Rerank: lambda a: (
        a.postprocess_nodes([NodeWithScore(node=TextNode(text="d"))], query_str="q")[0].score
    ),
    Qwen3TextEmbedder: lambda a: a.run("q")["embedding"],
    Qwen3DocumentEmbedder: lambda a: a.run([HaystackDocument(content="d")])["documents"],
    Qwen3Ranker: lambda a: a.run("q", [HaystackDocument(content="d")])["documents"],
}
every_adapter = pytest.mark.parametrize("adapter", USES)
every_pydantic_adapter = pytest.mark.parametrize("adapter", [a for a in USES if issubclass(a, BaseModel)])


def component(adapter: Any) -> Any:
    return getattr(adapter, adapter.ready)
