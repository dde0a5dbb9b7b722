"""The supported servers, one module each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qwen3_rag.backends.remote.servers import dashscope, openai, rerank, tei, vllm
from qwen3_rag.backends.remote.servers.base import Dialect, Request, Setup, Values
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.server_names import ServerName

_DIALECTS: Final[dict[tuple[ServerName, ModelKind], Callable[[Setup], Dialect]]] = {
    ("vllm", "embedding"): vllm.embedding,
    ("vllm", "reranking"): vllm.reranking,
    ("tei", "embedding"): tei.embedding,
    ("tei", "reranking"): tei.reranking,
    ("openai", "embedding"): openai.embedding,
    ("cohere", "reranking"): rerank.cohere,
    ("jina", "reranking"): rerank.jina,
    ("dashscope", "embedding"): dashscope.embedding,
    ("dashscope", "reranking"): dashscope.reranking,
}


def dialect_of(setup: Setup, kind: ModelKind) -> Dialect:
    """Return the dialect of the server that the options name.

    Raises:
        ConfigurationError: it does not serve this kind of model, or the options do not fit it.
    """
    server = setup.options.server
    make = _DIALECTS.get((server, kind))
    if make is None:
        able = ", ".join(repr(name) for name, its_kind in _DIALECTS if its_kind == kind)
        raise ConfigurationError(f"server={server!r} is not for {kind}; these are: {able}")
    return make(setup)


__all__ = ["Dialect", "Request", "Setup", "Values", "dialect_of"]
