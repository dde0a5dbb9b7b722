"""Components of three frameworks in one process hold one copy of the weights."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from haystack import Document as HaystackDocument
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_rag import Qwen3Embeddings
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding

VOCABULARY = 151669


def weight_storages(hidden_size: int) -> set[int]:
    """Addresses of all embedding tables alive: each copy of the weights has exactly one."""
    gc.collect()
    return {
        value.untyped_storage().data_ptr()
        for value in gc.get_objects()
        if isinstance(value, torch.Tensor) and value.shape == (VOCABULARY, hidden_size)
    }


def test_four_components_of_three_frameworks_share_one_copy(tmp_path: Path) -> None:
    from checkpoints import Qwen3Model, Shape, genuine_tokenizer, make_checkpoint

    # A width that no other test's checkpoint has, so that only these weights are counted.
    tokenizer = genuine_tokenizer(appends_end_of_text=True)
    folder = make_checkpoint(tmp_path, tokenizer, architecture=Qwen3Model, shape=Shape(hidden=48))
    options: dict[str, Any] = {"model": str(folder), "dtype": "float32", "device": "cpu"}
    assert weight_storages(48) == set()

    text_embedder, document_embedder = Qwen3TextEmbedder(**options), Qwen3DocumentEmbedder(**options)
    text_embedder.run(text="one")
    document_embedder.run(documents=[HaystackDocument(content="two")])
    embeddings = Qwen3Embeddings(**options)
    retriever = InMemoryVectorStore.from_texts(["three"], embeddings).as_retriever()
    retriever.invoke("four")
    embedding = Qwen3Embedding(**options)
    index = VectorStoreIndex([TextNode(text="five")], embed_model=embedding)
    index.as_retriever().retrieve("six")
    assert len(weight_storages(48)) == 1

    for component in (text_embedder, document_embedder, embeddings, embedding):
        component.close()
    assert weight_storages(48) == set()
