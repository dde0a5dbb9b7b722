"""What a user would pick instead, on the same checkpoint, and this package.

A peer whose package is missing is left out, with a line that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from typing import Final

from qwen3_rag.models import ModelKind

from benchmarks import own_process
from benchmarks.run_setup import Setup
from benchmarks.ways import OURS, Peer, failure


class UnavailableError(Exception):
    """A peer cannot run here, and why."""


Factory = Callable[[Setup, ExitStack], list[Peer]]
"""Loads a peer's models, to be closed with the stack. Some programs count as several peers."""

OURS_COMPILED: Final = "qwen3-rag-compiled"
"""In another process than `OURS`, but one peer with it."""

FACTORIES: Final[dict[ModelKind, dict[str, str]]] = {
    "embedding": {
        OURS: "ours:embedding",
        OURS_COMPILED: "ours:embedding_compiled",
        "sentence-transformers": "sentence_transformers:embedding",
        "snippet": "snippets:embedding",
        "langchain": "langchain:embedding",
        "llama-index": "llama_index:embedding",
        "openvino": "openvino:embedding",
        "vllm": "vllm:embedding",
    },
    "reranking": {
        OURS: "ours:reranking",
        OURS_COMPILED: "ours:reranking_compiled",
        "sentence-transformers": "sentence_transformers:reranking",
        "snippet": "snippets:reranking",
        "llama-index": "llama_index:reranking",
        "vllm": "vllm:reranking",
    },
}
NAMES: Final = tuple(FACTORIES["embedding"])
_STARTS_ITS_OWN_PROCESS: Final = "vllm"


def load(kind: ModelKind, names: Sequence[str], setup: Setup, stack: ExitStack) -> tuple[list[Peer], list[str]]:
    """Load the named peers, ours first, each in a process of its own.

    Returns:
        The peers, and a line for each that cannot run here.

    Raises:
        Whatever kept our own from being loaded.
    """
    setup.checkpoint(kind)  # for all processes
    places = {
        name: f"benchmarks.peers.{place}"
        for name, place in FACTORIES[kind].items()
        if name in (OURS, OURS_COMPILED, *names)
    }
    processes = {
        name: own_process.start(place, stack)
        for name, place in places.items()
        if name != _STARTS_ITS_OWN_PROCESS
    }
    peers: list[Peer] = []
    skipped: list[str] = []
    for name, place in places.items():
        try:
            if name in processes:
                peers += own_process.load(processes[name], place, setup, stack)
            else:
                module, function = place.split(":")
                factory: Factory = getattr(import_module(module), function)
                peers += factory(setup, stack)
        except Exception as reason:
            if name == OURS:
                raise
            foreseen = isinstance(reason, ImportError | UnavailableError)
            skipped.append(f"{name}: {reason if foreseen else failure(reason)}")
    return _joined(peers), skipped


def _joined(peers: Sequence[Peer]) -> list[Peer]:
    """Make one peer of those of one name."""
    found: dict[str, Peer] = {}
    for peer in peers:
        before = found.get(peer.name, peer)
        runs = {**before.settings, **peer.settings}, {**before.queries, **peer.queries}
        found[peer.name] = replace(before, settings=runs[0], queries=runs[1])
    return list(found.values())
