"""This package with its default settings, and with kernels that `torch.compile` made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from qwen3_rag import ConfigurationError, Embedder, Reranker

from benchmarks.run_setup import Setup
from benchmarks.ways import OURS, Peer, Run, clocked

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
    """`Embedder`."""
    documents: dict[str, Run] = {}
    queries: dict[str, Run] = {}
    for setting, options in settings().items():
        loaded = embedder(setup, stack, **options)
        if _works(loaded):
            documents[setting], queries[setting] = (
                clocked(loaded.embed_documents),
                clocked(loaded.embed_queries),
            )
    return [Peer(OURS, documents, DEFAULT, queries)]


def reranking(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`Reranker.score_pairs`."""
    scores = {}
    for setting, options in settings().items():
        loaded = reranker(setup, stack, **options)
        if _works(loaded):
            scores[setting] = clocked(loaded.score_pairs)
    return [Peer(OURS, scores, DEFAULT)]


def settings() -> dict[str, dict[str, Any]]:
    """Options by the name of the setting."""
    return {DEFAULT: {}, COMPILED: {"model_kwargs": {"compile": True}}}


def _works(loaded: Embedder | Reranker) -> bool:
    """Whether it can be loaded; compiling needs a compiler."""
    try:
        loaded.load()
    except ConfigurationError as error:
        print(f"left out: {str(error).splitlines()[0]}")
        return False
    return True
