"""This package with its default settings."""

from __future__ import annotations

from contextlib import ExitStack

from qwen3_rag import Embedder, Reranker

from benchmarks.run_setup import Setup
from benchmarks.ways import OURS, Peer, clocked

DEFAULT = "default"


def embedder(setup: Setup, stack: ExitStack, *, max_tokens: int = 8192) -> Embedder:
    """The checkpoint's `Embedder`; every call of a run shares its weights."""
    return stack.enter_context(
        Embedder(
            str(setup.checkpoint("embedding")),
            device=str(setup.device),
            dtype=setup.dtype_name,
            max_tokens=max_tokens,
        )
    )


def reranker(setup: Setup, stack: ExitStack) -> Reranker:
    """The checkpoint's `Reranker`."""
    return stack.enter_context(
        Reranker(str(setup.checkpoint("reranking")), device=str(setup.device), dtype=setup.dtype_name)
    )


def embedding(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`Embedder`."""
    loaded = embedder(setup, stack)
    documents, queries = clocked(loaded.embed_documents), clocked(loaded.embed_queries)
    return [Peer(OURS, {DEFAULT: documents}, DEFAULT, {DEFAULT: queries})]


def reranking(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`Reranker.score_pairs`."""
    return [Peer(OURS, {DEFAULT: clocked(reranker(setup, stack).score_pairs)}, DEFAULT)]
