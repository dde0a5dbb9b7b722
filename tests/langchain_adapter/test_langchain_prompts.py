"""What LangChain users type is what the model reads: token ids at the backend."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_cross_encoder import Qwen3CrossEncoder, needs_cross_encoders
from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
from qwen3_rag import Embedder, Reranker
from qwen3_rag.testing.recording import recording
from tokenizers import Tokenizer

QUERY = "  How far\nis the sun?"
TEXT = "   A line,\n\nand\tanother\r\none."
END_OF_TEXT = 151643
TASK = "Given a web search query, retrieve relevant passages that answer the query"


def query_ids(tokenizer: Tokenizer, query: str, task: str = TASK) -> list[int]:
    prompt = f"Instruct: {task}\nQuery:{query}"
    return [*tokenizer.encode(prompt, add_special_tokens=False).ids, END_OF_TEXT]


def document_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return [*tokenizer.encode(text, add_special_tokens=False).ids, END_OF_TEXT]


@pytest.fixture(scope="module")
def tokenizer(embedding_checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_file(str(embedding_checkpoint / "tokenizer.json"))


def store(embeddings: Any) -> InMemoryVectorStore:
    store = InMemoryVectorStore(embeddings)
    store.store["1"] = {"id": "1", "vector": [1.0] * 64, "text": "x", "metadata": {}}
    return store


def cached(embeddings: Any) -> CacheBackedEmbeddings:
    return CacheBackedEmbeddings.from_bytes_store(
        embeddings,
        InMemoryByteStore(),
        query_embedding_cache=InMemoryByteStore(),
        key_encoder="sha256",
    )


QUERY_PATHS: dict[str, Callable[[Any], Any]] = {
    "embed_query": lambda e: e.embed_query(QUERY),
    "aembed_query": lambda e: asyncio.run(e.aembed_query(QUERY)),
    "search": lambda e: store(e).similarity_search(QUERY),
    "search, async": lambda e: asyncio.run(store(e).asimilarity_search(QUERY)),
    "retriever": lambda e: store(e).as_retriever().invoke(QUERY),
    "retriever, async": lambda e: asyncio.run(store(e).as_retriever().ainvoke(QUERY)),
    "cache": lambda e: cached(e).embed_query(QUERY),
    "cache, async": lambda e: asyncio.run(cached(e).aembed_query(QUERY)),
}

DOCUMENT_PATHS: dict[str, Callable[[Any], Any]] = {
    "embed_documents": lambda e: e.embed_documents([TEXT]),
    "aembed_documents": lambda e: asyncio.run(e.aembed_documents([TEXT])),
    "add_texts": lambda e: store(e).add_texts([TEXT]),
    "add_documents, async": lambda e: asyncio.run(store(e).aadd_documents([Document(TEXT)])),
    "cache": lambda e: cached(e).embed_documents([TEXT]),
    "cache, async": lambda e: asyncio.run(cached(e).aembed_documents([TEXT])),
}


@pytest.mark.parametrize("path", QUERY_PATHS)
def test_query_carries_its_instruction(path: str, embedder: Embedder, tokenizer: Tokenizer) -> None:
    with recording(embedder) as record:
        QUERY_PATHS[path](Qwen3Embeddings(embedder=embedder))
    assert record.prompts == [query_ids(tokenizer, QUERY)]


@pytest.mark.parametrize("path", DOCUMENT_PATHS)
def test_documents_are_embedded_as_they_are(path: str, embedder: Embedder, tokenizer: Tokenizer) -> None:
    with recording(embedder) as record:
        DOCUMENT_PATHS[path](Qwen3Embeddings(embedder=embedder))
    assert record.prompts == [document_ids(tokenizer, TEXT)]


def test_an_instruction_of_ones_own_replaces_the_default(
    embedding_options: dict[str, Any], embedder: Embedder, tokenizer: Tokenizer
) -> None:
    task = "Given a claim, find documents that refute the claim"
    with Qwen3Embeddings(**embedding_options, instruction=task) as embeddings, recording(embedder) as record:
        embeddings.embed_query(QUERY)
        embeddings.embed_documents([TEXT])
    assert record.prompts == [query_ids(tokenizer, QUERY, task), document_ids(tokenizer, TEXT)]


def rerank_ids(tokenizer: Tokenizer, query: str, document: str) -> list[int]:
    parts = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        f"<Instruct>: {TASK}\n<Query>: {query}\n<Document>: {document}",
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    )
    return [i for part in parts for i in tokenizer.encode(part, add_special_tokens=False).ids]


RERANK_PATHS: dict[str, Callable[[Reranker], Any]] = {
    "compress": lambda r: Qwen3Reranker(reranker=r).compress_documents([Document(TEXT)], QUERY),
    "compress, async": lambda r: asyncio.run(
        Qwen3Reranker(reranker=r).acompress_documents([Document(TEXT)], QUERY)
    ),
    "score": lambda r: Qwen3CrossEncoder(reranker=r).score([(QUERY, TEXT)]),
    "score, async": lambda r: asyncio.run(Qwen3CrossEncoder(reranker=r).ascore([(QUERY, TEXT)])),
}


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=needs_cross_encoders) if p.startswith("score") else p for p in RERANK_PATHS],
)
def test_reranking_reads_the_published_prompt(path: str, reranker: Reranker, tokenizer: Tokenizer) -> None:
    with recording(reranker) as record:
        RERANK_PATHS[path](reranker)
    assert record.prompts == [rerank_ids(tokenizer, QUERY, TEXT)]


CALLS = 50


def rounds_of_calls_held_until_the_heart_beat(component: Any, call: Callable[[int], Awaitable[Any]]) -> int:
    """Run concurrent calls; the model waits for 20 heartbeats of the event loop. Return its rounds."""
    beating = threading.Event()

    async def heart() -> None:
        for _ in range(20):
            await asyncio.sleep(0.001)
        beating.set()

    async def run() -> None:
        await asyncio.gather(heart(), *(call(i) for i in range(CALLS)))

    with recording(component) as record:
        recorded = component.backend.run

        def held(prompts: Any) -> Any:
            assert beating.wait(30), "the event loop stood still while the model ran"
            return recorded(prompts)

        with patch.object(component.backend, "run", held):
            asyncio.run(run())
    assert len(record.prompts) == CALLS
    return len(record.rounds)


def test_concurrent_queries_share_batches_and_leave_the_loop_free(embedder: Embedder) -> None:
    embeddings = Qwen3Embeddings(embedder=embedder)
    # One round for the call that found the model idle, one for all that came while it was busy.
    rounds = rounds_of_calls_held_until_the_heart_beat(
        embedder, lambda i: embeddings.aembed_query(f"query {i}")
    )
    assert rounds <= 2


def test_concurrent_rerankings_share_batches_and_leave_the_loop_free(reranker: Reranker) -> None:
    compressor = Qwen3Reranker(reranker=reranker)
    tokens = reranker.load().backend.token_budget  # type: ignore[union-attr]
    rounds = rounds_of_calls_held_until_the_heart_beat(
        reranker, lambda i: compressor.acompress_documents([Document(TEXT)], f"query {i}")
    )
    # Prompts of about 110 tokens, which share fewer than half: a few rounds where the budget is small.
    assert rounds <= 2 + CALLS * 110 // tokens
