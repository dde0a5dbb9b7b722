"""A small checkpoint behind a server that speaks as vLLM's does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import models
import server
from qwen3_rag import Embedder, Reranker

LOCAL: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def options(backend: str, folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Options that run a checkpoint on a backend, here or behind a server, or in two processes of it."""
    if backend == "processes":
        return {**LOCAL, "device": ["cpu", "cpu"]}
    if backend != "remote":
        return {"backend": backend, **LOCAL}
    url = stack.enter_context(serving(folder))
    return {"backend": backend, "model_kwargs": {"base_url": url, "server": "vllm"}}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a checkpoint on loopback; yields the base URL."""
    kind = Reranker if "reranker" in folder.name else Embedder
    with (
        kind(str(folder), dtype="float32", device="cpu") as component,
        server.serving(models.vllm(models.checkpoint(component))) as served,
    ):
        yield served.url
