"""What a user would pick instead, on the same checkpoint, and this package.

A peer whose package is missing is left out, with a line that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Final

from qwen3_rag.models import ModelKind

from benchmarks.run_setup import Setup
from benchmarks.ways import OURS, Peer


class UnavailableError(Exception):
    """A peer cannot run here, and why."""


Factory = Callable[[Setup, ExitStack], list[Peer]]
"""Loads a peer's models, to be closed with the stack. Some programs count as several peers."""

FACTORIES: Final[dict[ModelKind, dict[str, str]]] = {
    "embedding": {
        OURS: "ours:embedding",
        "sentence-transformers": "sentence_transformers:embedding",
        "snippet": "snippets:embedding",
        "langchain": "langchain:embedding",
        "llama-index": "llama_index:embedding",
        "openvino": "openvino:embedding",
        "vllm": "vllm:embedding",
    },
    "reranking": {
        OURS: "ours:reranking",
        "sentence-transformers": "sentence_transformers:reranking",
        "snippet": "snippets:reranking",
        "llama-index": "llama_index:reranking",
        "vllm": "vllm:reranking",
    },
}
NAMES: Final = tuple(FACTORIES["embedding"])


def load(kind: ModelKind, names: Sequence[str], setup: Setup, stack: ExitStack) -> tuple[list[Peer], list[str]]:
    """Load the named peers, ours first.

    Returns:
        The peers, and a line for each that cannot run here.
    """
    peers: list[Peer] = []
    skipped: list[str] = []
    for name, place in FACTORIES[kind].items():
        if name not in (OURS, *names):
            continue
        module, function = place.split(":")
        try:
            factory: Factory = getattr(import_module(f"benchmarks.peers.{module}"), function)
            peers += factory(setup, stack)
        except (ImportError, UnavailableError) as reason:
            skipped.append(f"{name}: {reason}")
    return peers, skipped
