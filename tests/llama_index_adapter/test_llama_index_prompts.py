"""What reaches the model, seen as token ids at the backend, whichever way LlamaIndex asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import DEFAULT_INSTRUCTION, Embedder, Reranker
from qwen3_rag.testing.recording import recording

TEXT = "  Two leading spaces,\nnewlines\n\n and <|im_end|> are data.\n"
QUERY_PROMPT = f"Instruct: {DEFAULT_INSTRUCTION}\nQuery:"

QUERY_PATHS: dict[str, Callable[[Qwen3Embedding], Any]] = {
    "sync": lambda e: e.get_query_embedding(TEXT),
    "async": lambda e: asyncio.run(e.aget_query_embedding(TEXT)),
    "aggregated": lambda e: e.get_agg_embedding_from_queries([TEXT]),
    "aggregated, async": lambda e: asyncio.run(e.aget_agg_embedding_from_queries([TEXT])),
}
DOCUMENT_PATHS: dict[str, Callable[[Qwen3Embedding], Any]] = {
    "sync": lambda e: e.get_text_embedding(TEXT),
    "async": lambda e: asyncio.run(e.aget_text_embedding(TEXT)),
    "batch": lambda e: e.get_text_embedding_batch([TEXT]),
    "batch, async": lambda e: asyncio.run(e.aget_text_embedding_batch([TEXT])),
    "workers": lambda e: asyncio.run(e.model_copy(update={"num_workers": 2}).aget_text_embedding_batch([TEXT])),
    "nodes": lambda e: e([TextNode(text=TEXT)]),
    "nodes, async": lambda e: asyncio.run(e.acall([TextNode(text=TEXT)])),
}


def plain_ids(embedder: Embedder, prompt: str) -> list[int]:
    """Token ids of a prompt as the published tokenizer gives them, its user text without added tokens."""
    tokenizer = embedder._open().tokenizer
    (encoded,) = tokenizer.encode_texts([prompt], prompt="", max_tokens=1000, is_query=False).token_ids
    return list(map(int, encoded))


@pytest.mark.parametrize("path", QUERY_PATHS)
def test_a_query_carries_its_instruction(path: str, embedding: Qwen3Embedding) -> None:
    with recording(embedding.embedder) as recorded:
        QUERY_PATHS[path](embedding)
    assert recorded.prompts == [plain_ids(embedding.embedder, QUERY_PROMPT + TEXT)]


@pytest.mark.parametrize("path", DOCUMENT_PATHS)
def test_a_document_is_embedded_as_it_is(path: str, embedding: Qwen3Embedding) -> None:
    with recording(embedding.embedder) as recorded:
        DOCUMENT_PATHS[path](embedding)
    assert recorded.prompts == [plain_ids(embedding.embedder, TEXT)]


def test_an_instruction_of_ones_own_replaces_the_default(embedding: Qwen3Embedding) -> None:
    chosen = embedding.model_copy(update={"instruction": "Find the recipe"})
    with recording(chosen.embedder) as recorded:
        chosen.get_query_embedding("bread")
    assert recorded.prompts == [plain_ids(chosen.embedder, "Instruct: Find the recipe\nQuery:bread")]


def rerank_ids(reranker: Reranker, query: str, document: str) -> list[int]:
    encoded = reranker._open().tokenizer.encode_pairs(
        [(query, document)], instruction=DEFAULT_INSTRUCTION, max_tokens=1000
    )
    return list(map(int, encoded.token_ids[0]))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_node_is_judged_with_the_query_and_its_own_text(is_async: bool, rerank: Qwen3Rerank) -> None:
    nodes = [NodeWithScore(node=TextNode(text=TEXT))]
    with recording(rerank.reranker) as recorded:
        if is_async:
            asyncio.run(rerank.apostprocess_nodes(nodes, query_bundle=QueryBundle("  why?\n")))
        else:
            rerank.postprocess_nodes(nodes, query_bundle=QueryBundle("  why?\n"))
    assert recorded.prompts == [rerank_ids(rerank.reranker, "  why?\n", TEXT)]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (None, "page: 7\n\nmoon"),
        (MetadataMode.EMBED, "page: 7\n\nmoon"),
        (MetadataMode.ALL, "page: 7\nsecret: x\n\nmoon"),
        (MetadataMode.NONE, "moon"),
    ],
)
def test_the_metadata_mode_says_what_stands_before_the_text(
    mode: MetadataMode | None, expected: str, reranker: Reranker
) -> None:
    rerank = Qwen3Rerank(reranker=reranker, **({} if mode is None else {"metadata_mode": mode}))
    node = TextNode(text="moon", metadata={"page": 7, "secret": "x"}, excluded_embed_metadata_keys=["secret"])
    with recording(reranker) as recorded:
        rerank.postprocess_nodes([NodeWithScore(node=node)], query_str="q")
    assert recorded.prompts == [rerank_ids(reranker, "q", expected)]


def test_concurrent_queries_share_batches(embedding: Qwen3Embedding) -> None:
    async def ask() -> list[list[float]]:
        return await asyncio.gather(*(embedding.aget_query_embedding(f"query {i}") for i in range(50)))

    with recording(embedding.embedder, calls=50) as recorded:
        vectors = asyncio.run(ask())
    assert len(recorded.prompts) == len(vectors) == 50
    assert len(recorded.rounds) <= 2


@pytest.mark.parametrize("is_async", [False, True])
def test_aggregated_queries_share_batches(is_async: bool, embedding: Qwen3Embedding) -> None:
    queries = [f"query {i}" for i in range(20)]
    with recording(embedding.embedder, calls=20) as recorded:
        if is_async:
            asyncio.run(embedding.aget_agg_embedding_from_queries(queries))
        else:
            embedding.get_agg_embedding_from_queries(queries)
    assert len(recorded.prompts) == 20
    assert len(recorded.rounds) <= 2


def test_concurrent_batches_are_merged_by_the_core(embedding: Qwen3Embedding) -> None:
    small = embedding.model_copy(update={"embed_batch_size": 1, "num_workers": 4})
    with recording(small.embedder, calls=4) as recorded:
        asyncio.run(small.aget_text_embedding_batch([f"text {i}" for i in range(40)]))
    assert len(recorded.prompts) == 40
    assert len(recorded.rounds) < 40


def test_concurrent_reranking_shares_batches(rerank: Qwen3Rerank) -> None:
    async def ask() -> None:
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("a", "b")]
        await asyncio.gather(*(rerank.apostprocess_nodes(nodes, query_str=f"query {i}") for i in range(50)))

    with recording(rerank.reranker, calls=50) as recorded:
        asyncio.run(ask())
    assert len(recorded.prompts) == 100
    # The prompts fill the token budget of more than one round.
    assert len(recorded.rounds) < 10


def test_the_core_decides_the_batches(embedding: Qwen3Embedding) -> None:
    with recording(embedding.embedder) as recorded:
        embedding.get_text_embedding_batch([f"text {i}" for i in range(300)])
    assert len(recorded.rounds) == 1
