"""LlamaIndex: `HuggingFaceEmbedding` and `SentenceTransformerRerank`, which call Sentence Transformers.

Both are given the instruction, which they do not use by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any

import torch
from llama_index.core.constants import DEFAULT_EMBED_BATCH_SIZE
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.postprocessor.sbert_rerank import SentenceTransformerRerank
from qwen3_rag import DEFAULT_INSTRUCTION

from benchmarks.checkpoints import QUERY_PROMPT
from benchmarks.peers.sentence_transformers import DEFAULT_BATCH, cross_encoder_folder
from benchmarks.run_setup import Setup
from benchmarks.ways import Peer, Run, batch_name, by_batch_size, clocked


def embedding(setup: Setup, _: ExitStack) -> list[Peer]:
    """`get_text_embedding_batch`, which hands over batches in the order given, and `get_query_embedding`."""
    model = HuggingFaceEmbedding(
        model_name=str(setup.checkpoint("embedding")),
        query_instruction=QUERY_PROMPT,
        device=str(setup.device),
        model_kwargs={"dtype": setup.dtype},
    )

    def documents(size: int) -> Run:
        def embed(texts: Any) -> Any:
            model.embed_batch_size = size
            return model.get_text_embedding_batch(list(texts))

        return clocked(embed)

    settings = by_batch_size(documents, setup.swept_batches, DEFAULT_EMBED_BATCH_SIZE)
    queries = clocked(lambda texts: [model.get_query_embedding(text) for text in texts])
    name, default = "LlamaIndex HuggingFaceEmbedding", batch_name(DEFAULT_EMBED_BATCH_SIZE)
    return [Peer(name, settings, default, {"query": queries}, "Sentence Transformers")]


def reranking(setup: Setup, _: ExitStack) -> list[Peer]:
    """`postprocess_nodes`, query by query; it offers no choice of batch size."""
    reranker = SentenceTransformerRerank(
        model=str(cross_encoder_folder(setup)),
        device=str(setup.device),
        cross_encoder_kwargs={
            "model_kwargs": {"dtype": setup.dtype},
            "prompts": {"task": DEFAULT_INSTRUCTION},
            "default_prompt_name": "task",
            "activation_fn": torch.nn.Sigmoid(),
        },
    )

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        scores: dict[str, float] = {}
        for query, group in groupby(enumerate(pairs), key=lambda pair: pair[1][0]):
            nodes = [NodeWithScore(node=TextNode(id_=str(i), text=passage)) for i, (_, passage) in group]
            reranker.top_n = len(nodes)
            found = reranker.postprocess_nodes(nodes, query_str=query)
            scores |= {node.node_id: float(node.score or 0.0) for node in found}
        return [scores[str(i)] for i in range(len(pairs))]

    default = batch_name(DEFAULT_BATCH)
    name = "LlamaIndex SentenceTransformerRerank"
    return [Peer(name, {default: clocked(score)}, default, wraps="CrossEncoder")]
