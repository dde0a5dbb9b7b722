"""Components of a remote backend, and what no test may leave behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import models
import numpy as np
import pytest
from checkpoints import ADDED
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.remote import RemoteOptions, client
from server import Answer, Server, serving
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from wire import DIALECT, Wire, Wired
from workload import TEXTS

VARIABLES = [
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (upper, upper.lower())
]


@pytest.fixture(autouse=True)
def _nothing_is_left_running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield
    left = [t.name for t in threading.enumerate() if t.name == "qwen3-rag-remote"]
    assert not left, f"event loops still run: {left}"


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(serving(answer))


@pytest.fixture(scope="session")
def embedding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the remote backend reads of a checkpoint: config and tokenizer. This one knows bytes only."""
    return _describe(tmp_path_factory.mktemp("described-embedding"), appends_end_of_text=True)


@pytest.fixture(scope="session")
def reranking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise of a reranker."""
    return _describe(tmp_path_factory.mktemp("described-reranker"), appends_end_of_text=False)


def _describe(folder: Path, *, appends_end_of_text: bool) -> Path:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={symbol: number for number, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in ADDED])
    if appends_end_of_text:
        end = tokenizer.token_to_id("<|endoftext|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "qwen3", "hidden_size": 64, "max_position_embeddings": 32768}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def embedder(embedding_folder: Path) -> Iterator[Callable[..., Embedder]]:
    """Makes embedders of the remote backend: options are keywords, `base_url` first."""
    with ExitStack() as stack:

        def make(base_url: Any, server: str = "vllm", **options: Any) -> Embedder:
            kwargs = {"server": server, "base_url": base_url, **options}
            made = Embedder(str(embedding_folder), backend="remote", model_kwargs=kwargs)
            return stack.enter_context(made)

        yield make


@pytest.fixture
def reranker(reranking_folder: Path) -> Iterator[Callable[..., Reranker]]:
    """Likewise rerankers."""
    with ExitStack() as stack:

        def make(base_url: Any, server: str = "vllm", **options: Any) -> Reranker:
            kwargs = {"server": server, "base_url": base_url, **options}
            made = Reranker(str(reranking_folder), backend="remote", model_kwargs=kwargs)
            return stack.enter_context(made)

        yield make


@pytest.fixture
def expected(embedding_folder: Path) -> np.ndarray:
    """What every call with TEXTS must give: computed without any server."""
    tokenizer = models.tokenizer_of(embedding_folder)
    return models.normalised(models.digest()([tokenizer.encode(text).ids for text in TEXTS]))


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff of at most 0.02 s; how long pauses are is tested without sockets."""
    monkeypatch.setattr(client, "pause", lambda _, chance: 0.02 * chance)


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> Wired:
    """Opens clients whose requests go to a `Wire`: options are keywords."""

    def opened(wire: Wire, *, max_tokens: int = 999, **options: Any) -> client.Client:
        def build(make: Callable[[], httpx.AsyncClient]) -> httpx.AsyncClient:
            made = make()
            made._transport = httpx.MockTransport(wire)
            return made

        monkeypatch.setattr(client, "build_client", build)
        given = RemoteOptions("openai", wire.urls, **{"timeout": 1.0, "deadline": 5.0, **options})
        return client.Client(given, DIALECT, None, max_tokens=max_tokens)

    return opened
