"""`qwen3-rag verify --backend`: right and wrong backends of this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faulty_model import Served
from qwen3_rag.plugins import load_backend
from qwen3_rag.prompts import EmbeddingWords, RerankingWords
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokens import Prompt
from qwen3_rag.verification import verify_backend
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.subject import Subject
from verify_run import run


@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_a_right_backend_passes(kind: str, embedding_checkpoint: Path, reranking_checkpoint: Path) -> None:
    model = embedding_checkpoint if kind == "embedding" else reranking_checkpoint
    result = run("--backend", "transformers", "--model", model, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["kind"] == kind
    assert report["target"] == 'backend "transformers"'


def test_a_backend_that_finds_nan_is_named(url: str, embedder: Served, embedding_checkpoint: Path) -> None:
    embedder.fault = "not-finite"
    kwargs = json.dumps({"server": "openai", "base_url": url, "served_model": "the-model"})
    result = run("--backend", "remote", "--model", embedding_checkpoint, "--model-kwargs", kwargs, "--json")
    assert result.exit_code == 1, result.output
    (check,) = json.loads(result.stdout)["checks"]
    assert [finding["fault"] for finding in check["findings"]] == ["not-finite"]
    assert (check["difference"], check["texts"], check["longest"]) == (None, 0, 0)
    assert check["path"] == "token ids"
    assert url in check["findings"][0]["what"], "what the backend says of it"


def third_partys(change: Callable[[Any], Any]) -> Any:
    """A class of backends whose values are changed ones of ours."""

    class Changed:
        def __init__(self, settings: Any) -> None:
            self.right = load_backend(settings)

        def run(self, prompts: Any) -> Any:
            output = self.right.run(prompts)
            return replace(output, values=change(output.values))

        def close(self) -> None:
            self.right.close()

    return Changed


def test_a_wrong_backend_is_named(reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's numbers, not ours: `verify` is how a third party's backend is checked."""
    monkeypatch.setattr(verify_backend, "load_backend", third_partys(lambda values: -values))
    result = run("--backend", "transformers", "--model", reranking_checkpoint)
    assert result.exit_code == 1
    assert "answers-swapped" in result.stdout


@pytest.mark.parametrize(
    ("change", "kind", "shapes"),
    [
        (lambda values: values[:, None], "reranking", "(14, 1) and (1, 1)"),
        (lambda values: values[:1], "reranking", "(1,)"),
        (lambda values: values[:, 0], "embedding", "(13,)"),
        (lambda values: values[:, : 32 if len(values) == 1 else None], "embedding", "(13, 64) and (1, 32)"),
    ],
    ids=["a list of each score", "a score too few", "no vectors", "two lengths"],
)
def test_a_backend_whose_values_have_another_form_is_told_so(
    change: Any,
    kind: str,
    shapes: str,
    embedding_checkpoint: Path,
    reranking_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """numpy would compare some of them with all that is right."""
    monkeypatch.setattr(verify_backend, "load_backend", third_partys(change))
    model = embedding_checkpoint if kind == "embedding" else reranking_checkpoint
    result = run("--backend", "transformers", "--model", model)
    assert result.exit_code == 2, result.output
    assert f"a prompt {'a vector' if kind == 'embedding' else 'a number'}" in result.stderr
    assert f"it gave {shapes}" in result.stderr


@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_a_backend_gets_all_prompts_at_once_and_then_the_first_three_alone(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their words, for backends that send text."""
    subject: Subject = request.getfixturevalue(kind)
    runs: list[list[Prompt]] = []

    class Recorder:
        def run(self, prompts: list[Prompt]) -> Any:
            runs.append(prompts)
            rows = (len(prompts), 64) if kind == "embedding" else len(prompts)
            return SimpleNamespace(values=np.zeros(rows, np.float32))

        def close(self) -> None:
            runs.append([])

    settings = EngineSettings(subject.kind, "m", backend="b")
    monkeypatch.setattr(verify_backend, "load_backend", lambda given: Recorder() if given is settings else None)
    assert not verify_backend.verify_backend(subject, settings).passed
    together, *alone = runs
    assert alone == [[prompt] for prompt in together[:3]] + [[]], "and is closed"
    assert [prompt.index for prompt in together] == list(range(len(subject.inputs)))
    for prompt, one in zip(together, subject.inputs, strict=True):
        assert prompt.token_ids.dtype == np.int32
        assert prompt.token_ids.tolist() == one.token_ids
        if isinstance(one.words, Text):
            assert prompt.words == EmbeddingWords(one.words.prompt, one.words.text, one.words.is_query)
        else:
            assert prompt.words == RerankingWords(subject.instruction, *one.words)
