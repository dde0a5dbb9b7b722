"""This package with its default settings, and with kernels that `torch.compile` made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from qwen3_rag import ConfigurationError, Embedder, Reranker

from benchmarks.run_setup import Setup
from benchmarks.ways import OURS, Peer, clocked

DEFAULT = "default"
COMPILED = "compile=True"


def embedder(setup: Setup, stack: ExitStack, *, max_tokens: int = 8192, **options: Any) -> Embedder:
    """The checkpoint's `Embedder`; every call of a run with equal options shares its weights."""
    return stack.enter_context(
        Embedder(
            str(setup.checkpoint("embedding")),
            device=str(setup.device),
            dtype=setup.dtype_name,
            max_tokens=max_tokens,
            **options,
        )
    )


def reranker(setup: Setup, stack: ExitStack, **options: Any) -> Reranker:
    """The checkpoint's `Reranker`."""
    return stack.enter_context(
        Reranker(
            str(setup.checkpoint("reranking")), device=str(setup.device), dtype=setup.dtype_name, **options
        )
    )


def embedding(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`Embedder` with its defaults."""
    return _embedding(setup, stack, DEFAULT)


def embedding_compiled(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`Embedder` with compiled kernels."""
    return _embedding(setup, stack, COMPILED)


def reranking(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`Reranker.score_pairs` with its defaults."""
    return _reranking(setup, stack, DEFAULT)


def reranking_compiled(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`Reranker.score_pairs` with compiled kernels."""
    return _reranking(setup, stack, COMPILED)


def settings() -> dict[str, dict[str, Any]]:
    """Options by the name of the setting."""
    return {DEFAULT: {}, COMPILED: {"model_kwargs": {"compile": True}}}


def _embedding(setup: Setup, stack: ExitStack, setting: str) -> list[Peer]:
    loaded = embedder(setup, stack, **settings()[setting])
    if not _works(loaded):
        return []
    documents, queries = clocked(loaded.embed_documents), clocked(loaded.embed_queries)
    return [Peer(OURS, {setting: documents}, DEFAULT, {setting: queries})]


def _reranking(setup: Setup, stack: ExitStack, setting: str) -> list[Peer]:
    loaded = reranker(setup, stack, **settings()[setting])
    return [Peer(OURS, {setting: clocked(loaded.score_pairs)}, DEFAULT)] if _works(loaded) else []


def _works(loaded: Embedder | Reranker) -> bool:
    """Whether it can be loaded; compiling needs a compiler."""
    try:
        loaded.load()
    except ConfigurationError as error:
        print(f"left out: {str(error).splitlines()[0]}")
        return False
    return True
