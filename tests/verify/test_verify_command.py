"""`qwen3-rag verify`: exit codes, words and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Served, running
from qwen3_rag.cli import app
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def served(embedding_checkpoint: Path) -> Served:
    return Served(embedding_checkpoint)


@pytest.fixture
def url(served: Served) -> Iterator[str]:
    with running(served, "vllm") as url:
        yield url
    served.fault = ""


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["verify", "--device", "cpu", *map(str, arguments)])


def test_a_right_server_exits_with_0(url: str, embedding_checkpoint: Path) -> None:
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 0, result.output
    assert "POST /v1/embeddings, token ids: right" in result.stdout
    assert "all agree" in result.stdout


def test_a_faulty_server_exits_with_1_and_says_what_to_do(
    url: str, served: Served, embedding_checkpoint: Path
) -> None:
    served.fault = "missing-final-token"
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 1, result.output
    assert "the final token <|endoftext|> is missing: their largest difference from the local" in result.stdout
    assert "fix: Serve the checkpoint's own tokenizer files" in result.stdout


def test_json_holds_all_of_it(url: str, served: Served, embedding_checkpoint: Path) -> None:
    served.fault = "not-normalised"
    result = run("--url", url, "--model", embedding_checkpoint, "--send", "ids", "--json")
    report = json.loads(result.stdout)
    assert (report["passed"], report["kind"]) == (False, "embedding")
    assert [check["path"] for check in report["checks"]] == ["POST /v1/embeddings, token ids"]
    assert report["checks"][0]["difference"] < 1e-5
    assert report["checks"][0]["findings"][0]["fault"] == "not-normalised"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --url"),
        (["--url", "http://127.0.0.1:9", "--backend", "transformers"], "give either --url"),
        (["--url", "http://127.0.0.1:9", "--server", "openai"], "cannot be reached"),
        (["--url", "user:secret@host"], "without user name"),
        (["--url", "http://127.0.0.1:9", "--server", "cohere"], "not for embedding"),
        (["--url", "http://127.0.0.1:9", "--server", "tei", "--send", "ids"], "takes no ids"),
        (["--url", "http://127.0.0.1:9", "--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
        (["--backend", "nothing"], "unknown backend 'nothing'"),
        (["--backend", "transformers", "--model-kwargs", "["], "must be a JSON object"),
    ],
)
def test_what_cannot_be_asked_exits_with_2(arguments: list[str], said: str, embedding_checkpoint: Path) -> None:
    result = run(*arguments, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "secret" not in result.output


def test_the_api_key_is_sent_and_shown_nowhere(
    url: str, served: Served, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = served.key = "k-5f1d-not-a-real-one"
    monkeypatch.setenv("SOME_KEY", key)
    try:
        asked = ("--url", url, "--model", embedding_checkpoint, "--send", "ids")
        assert run(*asked, "--api-key-env", "SOME_KEY").exit_code == 0
        refused = run(*asked)
        assert refused.exit_code == 2
        assert "--api-key-env" in refused.stderr
        served.fault = "refused"
        told = run(*asked, "--api-key-env", "SOME_KEY")
        assert told.exit_code == 1
        assert "[API key]" in told.stdout
        assert key not in told.output
    finally:
        served.key = None


@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_a_right_backend_passes(kind: str, embedding_checkpoint: Path, reranking_checkpoint: Path) -> None:
    model = embedding_checkpoint if kind == "embedding" else reranking_checkpoint
    result = run("--backend", "transformers", "--model", model, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["kind"] == kind
    assert report["target"] == 'backend "transformers"'


def test_a_wrong_backend_is_named(reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's numbers, not ours: `verify` is how a third party's backend is checked."""
    from qwen3_rag.verification import of_backend

    load = of_backend.load_plugin

    class Swapped:
        def __init__(self, settings: Any) -> None:
            self.right = load("qwen3_rag.backends", "transformers")(settings)

        def run(self, prompts: Any) -> Any:
            from dataclasses import replace

            output = self.right.run(prompts)
            return replace(output, values=-output.values)

        def close(self) -> None:
            self.right.close()

    monkeypatch.setattr(of_backend, "load_plugin", lambda *_: Swapped)
    result = run("--backend", "transformers", "--model", reranking_checkpoint)
    assert result.exit_code == 1
    assert "answers-swapped" in result.stdout
