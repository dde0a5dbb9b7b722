"""langchain-huggingface: `HuggingFaceEmbeddings`, which calls Sentence Transformers.

Told to use the saved query prompt, which it does not by itself.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from langchain_huggingface import HuggingFaceEmbeddings

from benchmarks.peers.sentence_transformers import DEFAULT_BATCH
from benchmarks.run_setup import Setup
from benchmarks.ways import Peer, Run, batch_name, by_batch_size, clocked


def embedding(setup: Setup, _: ExitStack) -> list[Peer]:
    """`embed_documents` and `embed_query`; its default is the batch size of Sentence Transformers."""
    options: dict[str, Any] = {"device": str(setup.device), "model_kwargs": {"dtype": setup.dtype}}
    embeddings = HuggingFaceEmbeddings(
        model_name=str(setup.checkpoint("embedding")),
        model_kwargs=options,
        query_encode_kwargs={"prompt_name": "query"},
    )

    def documents(size: int) -> Run:
        def embed(texts: Any) -> Any:
            embeddings.encode_kwargs = {"batch_size": size}
            return embeddings.embed_documents(list(texts))

        return clocked(embed)

    settings = by_batch_size(documents, setup.swept_batches, DEFAULT_BATCH)
    queries = clocked(lambda texts: [embeddings.embed_query(text) for text in texts])
    name, default = "LangChain HuggingFaceEmbeddings", batch_name(DEFAULT_BATCH)
    return [Peer(name, settings, default, {"query": queries}, "Sentence Transformers")]
