"""vLLM's own HTTP server, started as `qwen3-rag serve` says, on the loopback interface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
from qwen3_rag import Embedder, Reranker
from qwen3_rag.cli import app
from typer.testing import CliRunner
from vllm_processes import KEY, Process
from vllm_texts import generated_pairs, generated_texts

SECONDS = 600
"""A bound for a machine that is busy with other things."""
_direct = build_opener(ProxyHandler({}))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("SERVERS_KEY", KEY)


@pytest.fixture(scope="session")
def embedding_url(embedding_server: Process) -> str:
    embedding_server.wait_until_ready(SECONDS)
    return embedding_server.url


@pytest.fixture(scope="session")
def reranking_url(reranking_server: Process) -> str:
    reranking_server.wait_until_ready(SECONDS)
    return reranking_server.url


def at(url: str) -> dict[str, Any]:
    """Options of the remote backend."""
    options = {"server": "vllm", "base_url": url, "served_model": "small", "api_key_env": "SERVERS_KEY"}
    return {"backend": "remote", "model_kwargs": options}


def test_vectors_are_equal(embedding_url: str, embedders: tuple[Embedder, Embedder]) -> None:
    with Embedder(embedders[0].model, **at(embedding_url)) as remote:
        for dimensions in (None, 32):
            ours, theirs = (
                e.embed_queries(generated_texts(), dimensions=dimensions) for e in (remote, embedders[1])
            )
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        ours, theirs = (e.embed_documents(generated_texts()) for e in (remote, embedders[1]))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_scores_are_equal(reranking_url: str, rerankers: tuple[Reranker, Reranker]) -> None:
    with Reranker(rerankers[0].model, **at(reranking_url)) as remote:
        for instruction in (None, "Find it"):
            ours, theirs = (
                r.score_pairs(generated_pairs(), instruction=instruction) for r in (remote, rerankers[1])
            )
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def verify(url: str, model: Path, *arguments: str) -> Any:
    """Run `qwen3-rag verify`; return its result and what it reports."""
    asked = ("--url", url, "--model", str(model), "--device", "cpu", "--tolerance", "0.001", "--json")
    result = CliRunner().invoke(app, ["verify", *asked, "--api-key-env", "SERVERS_KEY", *arguments])
    return result.exit_code, json.loads(result.stdout)


def test_verify_passes_an_embedding_server(embedding_url: str, embedding_folder: Path) -> None:
    code, report = verify(embedding_url, embedding_folder)
    assert (code, report["kind"]) == (0, "embedding"), report
    assert [check["path"] for check in report["checks"]] == [
        "POST /v1/embeddings, token ids",
        "POST /v1/embeddings, text",
    ]


def test_verify_passes_a_reranking_server_asked_with_ids(reranking_url: str, reranking_folder: Path) -> None:
    code, report = verify(reranking_url, reranking_folder, "--send", "ids")
    assert (code, report["kind"]) == (0, "reranking"), report
    assert [check["path"] for check in report["checks"]] == ["POST /classify, token ids"]


def test_verify_says_that_the_server_applies_no_template_to_text(
    reranking_url: str, reranking_folder: Path
) -> None:
    code, report = verify(reranking_url, reranking_folder, "--send", "text")
    assert code == 1
    assert [finding["fault"] for check in report["checks"] for finding in check["findings"]] == [
        "template-missing"
    ]


def status(url: str, body: dict[str, Any], **headers: str) -> int:
    """Post, and return the HTTP status."""
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    try:
        with _direct.open(request, timeout=120) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def test_the_servers_key_guards_v1_but_not_classify(embedding_url: str, reranking_url: str) -> None:
    """What docs/security.md says. If this fails, vLLM guards more: say so there and in docs/vllm.md."""
    body = {"model": "small", "input": [[1, 2, 3]]}
    assert status(f"{embedding_url}/v1/embeddings", body) == 401
    assert status(f"{embedding_url}/v1/embeddings", body, Authorization=f"Bearer {KEY}") == 200
    for path in ("/classify", "/pooling"):
        assert status(f"{reranking_url}{path}", body) == 200
