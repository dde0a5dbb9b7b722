"""One search per framework, behind one shape. Listing them imports no framework; making one imports its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol, TypeVar

from qwen3_rag.plugins import ADAPTERS, list_plugins
from qwen3_rag.usage import Usage

Item = TypeVar("Item")

FRAMEWORKS: Final = {"langchain": "LangChain", "llama-index": "LlamaIndex", "haystack": "Haystack"}
"""Start of its adapters' names -> what people call it."""

CORE: Final = "core"


@dataclass(frozen=True)
class Models:
    """What is searched with.

    Attributes:
        embedding, reranking: hub repository, local folder, or "demo".
        device: None takes the best there is.
    """

    embedding: str
    reranking: str
    device: str | None = None


@dataclass(frozen=True)
class Found:
    """A passage and what it scored.

    Attributes:
        passage: its index in the corpus.
        score: the cosine after retrieval, P(yes) after reranking.
    """

    passage: int
    score: float


_PIECE: Final = 2048
"""The most texts that LlamaIndex hands to an embedding model at a time."""


def pieces(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Divide what is to be indexed, alike for every framework.

    A vector's last bits depend on what shares its batch, and so on how many texts are handed over at a time.
    """
    for start in range(0, len(items), _PIECE):
        yield items[start : start + _PIECE]


class Search(Protocol):
    """Index once, then retrieve and rerank for any number of questions."""

    @property
    def package(self) -> str:
        """The distribution that is shown, for its version."""

    def index(self, passages: Sequence[str]) -> Usage:
        """Embed passages into the framework's own store, in memory. Returns what it cost."""

    def retrieve(self, question: str, count: int) -> tuple[list[Found], Usage]:
        """Return the nearest passages, nearest first, and what it cost."""

    def rerank(self, question: str, found: Sequence[Found]) -> tuple[list[Found], Usage]:
        """Return the same passages by P(yes), best first, and what it cost."""

    def close(self) -> None:
        """Give the weights back."""


def installed_frameworks() -> list[str]:
    """Return those of `FRAMEWORKS` that are installed, or the core alone where none is."""
    usable = {plugin.name for plugin in list_plugins(ADAPTERS) if plugin.installed}
    found = [name for name in FRAMEWORKS if any(adapter.startswith(f"{name}-") for adapter in usable)]
    return found if found else [CORE]


def make_search(framework: str, models: Models) -> Search:
    """Import one framework and return a search through it.

    Args:
        framework: one of `installed_frameworks()`.
        models: what to search with.

    Raises:
        ImportError: a module that the framework needs is missing.
    """
    search: Search = _module(framework).make(models)
    return search


def lines_of_code(framework: str, embedding: str | None, reranking: str | None) -> str:
    """Return three lines that put both models into a project of this framework.

    Args:
        framework: one of `installed_frameworks()`.
        embedding, reranking: models to name; None leaves it to the defaults, the published 0.6B.
    """
    lines: str = _module(framework).LINES
    return lines.format(embedding=_argument(embedding), **_reranking(reranking))


def _module(framework: str) -> Any:
    return import_module(f"{__name__}.through_{framework.replace('-', '_')}")


def _argument(model: str | None) -> str:
    return "" if model is None else f"model={model!r}"


def _reranking(model: str | None) -> dict[str, str]:
    argument = _argument(model)
    return {"reranking": argument, "reranking_first": f"{argument}, " if argument else ""}
