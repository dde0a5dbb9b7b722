"""Warnings name the user's line, and not one of LlamaIndex's, which wraps every call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import TruncationWarning

LONG = "word " * 300

EMBEDDING: dict[str, Callable[[Qwen3Embedding], Any]] = {
    "one text": lambda e: e.get_text_embedding(LONG),
    "texts": lambda e: e.get_text_embedding_batch([LONG]),
    "nodes": lambda e: e([TextNode(text=LONG)]),
}


@pytest.mark.parametrize("call", EMBEDDING)
def test_a_cut_text_is_told_of_where_it_was_given(call: str, embedding_checkpoint: Path) -> None:
    embedding = Qwen3Embedding(model=str(embedding_checkpoint), max_tokens=100, dtype="float32", device="cpu")
    with embedding, pytest.warns(TruncationWarning) as told:
        EMBEDDING[call](embedding)
    assert told[0].filename == __file__


def test_a_cut_node_is_told_of_where_it_was_given(reranking_checkpoint: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 200, "dtype": "float32", "device": "cpu"}
    nodes = [NodeWithScore(node=TextNode(text=LONG))]
    with (
        Qwen3Rerank(model=str(reranking_checkpoint), **options) as rerank,
        pytest.warns(TruncationWarning) as told,
    ):
        rerank.postprocess_nodes(nodes, query_str="q")
    assert told[0].filename == __file__
