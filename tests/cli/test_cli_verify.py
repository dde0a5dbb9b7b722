"""`qwen3-rag verify` where only what the package always needs is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command import Invoke


@pytest.fixture(autouse=True)
def no_http_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)


def test_verification_of_a_server_names_the_extra_that_it_needs(
    invoke: Invoke, embedding_checkpoint: Path
) -> None:
    found = invoke("verify", "--url", "http://127.0.0.1:9", "--model", embedding_checkpoint)
    assert found.code == 2
    assert 'pip install "qwen3-rag[remote]"' in found.err


def test_verification_of_a_backend_needs_no_extra(invoke: Invoke, embedding_checkpoint: Path) -> None:
    backend = ("--backend", "transformers", "--kind", "embedding", "--device", "cpu")
    found = invoke("verify", *backend, "--model", embedding_checkpoint)
    assert found.code == 0, found.err
    assert "all agree" in found.out
