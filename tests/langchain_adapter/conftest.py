"""Models of the small checkpoints, kept loaded while the adapters' tests come and go."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qwen3_rag import Embedder, Reranker

EXACT: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run langchain-tests' coroutine tests, whichever asyncio plugin there is and however it is set."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in arguments}))
    return True


@pytest.fixture(scope="session")
def embedding_options(embedding_checkpoint: Path) -> dict[str, Any]:
    """Options of an exact embedding model."""
    return {"model": str(embedding_checkpoint), **EXACT}


@pytest.fixture(scope="session")
def reranking_options(reranking_checkpoint: Path) -> dict[str, Any]:
    """Options of an exact reranking model."""
    return {"model": str(reranking_checkpoint), **EXACT}


@pytest.fixture(scope="session")
def embedder(embedding_options: dict[str, Any]) -> Iterator[Embedder]:
    """A loaded embedder of these options; adapters of the same options share its weights."""
    with Embedder(**embedding_options).load() as embedder:
        yield embedder


@pytest.fixture(scope="session")
def reranker(reranking_options: dict[str, Any]) -> Iterator[Reranker]:
    """A loaded reranker of these options; adapters of the same options share its weights."""
    with Reranker(**reranking_options).load() as reranker:
        yield reranker
