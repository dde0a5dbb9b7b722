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
from vllm_texts import INSTRUCTIONS, generated_pairs, generated_texts

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


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_query_vectors_are_equal_with_an_instruction(
    embedding_url: str, embedders: tuple[Embedder, Embedder], instruction: str | None
) -> None:
    with Embedder(embedders[0].model, **at(embedding_url)) as remote:
        ours, theirs = (
            e.embed_queries(generated_texts(), instruction=instruction) for e in (remote, embedders[1])
        )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_rankings_are_equal_with_an_instruction(
    reranking_url: str, rerankers: tuple[Reranker, Reranker], instruction: str | None
) -> None:
    texts = sorted(set(generated_texts()))
    with Reranker(rerankers[0].model, **at(reranking_url)) as remote:
        ours, theirs = (
            r.rerank("capital of China", texts, instruction=instruction) for r in (remote, rerankers[1])
        )
    # By text, because rounding may part scores that are equal.
    by_text = {one.text: one.score for one in theirs}
    np.testing.assert_allclose([one.score for one in ours], [by_text[one.text] for one in ours], atol=1e-5)
    np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], atol=1e-5)


def test_what_is_cut_is_cut_alike_and_counted(
    embedding_url: str,
    reranking_url: str,
    embedders: tuple[Embedder, Embedder],
    rerankers: tuple[Reranker, Reranker],
) -> None:
    def found(embedding: dict[str, Any], reranking: dict[str, Any]) -> tuple[Any, Any]:
        with (
            Embedder(embedders[0].model, max_tokens=20, **embedding) as embedder,
            Reranker(rerankers[0].model, max_tokens=150, **reranking) as reranker,
            pytest.warns(UserWarning, match="documents were cut"),
        ):
            return embedder.embed(generated_texts(), role="document"), reranker.evaluate(generated_pairs())

    here = {"dtype": "float32", "device": "cpu"}
    ours, theirs = found(at(embedding_url), at(reranking_url)), found(here, here)
    np.testing.assert_allclose(ours[0].vectors, theirs[0].vectors, atol=1e-5)
    np.testing.assert_allclose(ours[1].scores, theirs[1].scores, atol=1e-5)
    for our, their in zip(ours, theirs, strict=True):
        assert our.usage.truncated_texts == their.usage.truncated_texts > 5


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


@pytest.mark.parametrize(
    "told", [(), ("--instruction", "Find it", "--instruction-field", "instruction")], ids=str
)
def test_verify_passes_a_reranking_server_for_token_ids_and_for_text(
    told: tuple[str, ...], reranking_url: str, reranking_folder: Path
) -> None:
    code, report = verify(reranking_url, reranking_folder, "--send", "both", *told)
    assert (code, report["kind"]) == (0, "reranking"), report
    assert [(check["path"], check["passed"], check["is_note"]) for check in report["checks"]] == [
        ("POST /classify, token ids", True, False),
        ("POST /rerank, text", True, False),
    ]


def test_a_template_that_is_applied_twice_is_found(reranking_url: str, reranking_folder: Path) -> None:
    """It shows too that verify would see one that is wrong."""
    code, report = verify(reranking_url, reranking_folder, "--send", "text", "--template", "client")
    assert code == 1
    (check,) = report["checks"]
    assert [finding["fault"] for finding in check["findings"]] == ["template-doubled"]


def test_clients_that_send_text_get_the_same_scores(
    reranking_url: str, rerankers: tuple[Reranker, Reranker]
) -> None:
    """In Cohere's form, in which gateways ask. What looks like a special token would be one there."""
    pairs = [pair for pair in generated_pairs() if "<" not in "".join(pair)]
    assert len(pairs) > 10
    ours = at(reranking_url)
    ours["model_kwargs"] |= {"server": "cohere", "template": "server", "instruction_field": "instruction"}
    with Reranker(rerankers[0].model, **ours) as remote:
        for instruction in (None, "Find it"):
            found, expected = (r.score_pairs(pairs, instruction=instruction) for r in (remote, rerankers[1]))
            np.testing.assert_allclose(found, expected, atol=1e-5)


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
