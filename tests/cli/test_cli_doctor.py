"""`doctor` passes here, and says so when numbers are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Invoke
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.device import choice


def test_doctor_passes_and_reports_what_it_found(invoke: Invoke) -> None:
    run = invoke("doctor", "--device", "cpu", "--json")
    assert run.code == 0, run.out
    report = json.loads(run.out)
    assert report["passed"] is True
    assert [check["name"] for check in report["self_test"]][:2] == ["embedding", "reranking"]
    assert all(check["largest_difference"] <= 1e-5 for check in report["self_test"][:2])
    assert report["versions"]["torch"]
    assert report["attention"] == "sdpa per segment"


def test_doctor_tests_the_checkpoints_it_is_given(
    invoke: Invoke, embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    run = invoke(
        "doctor", "--device", "cpu", "--model", embedding_checkpoint, "--reranker", reranking_checkpoint
    )
    assert run.code == 0, run.out
    assert run.out.count("passed") >= 2


@pytest.mark.parametrize("is_right", [True, False])
def test_the_element_type_that_is_used_is_tested_too(
    is_right: bool, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "computes_bfloat16", lambda _: True)
    right = Embedder.embed_documents

    def documents(self: Embedder, texts: Any) -> Any:
        vectors = right(self, texts)
        if not is_right and self.arguments["dtype"] == "bfloat16":
            vectors[-1] = vectors[0]
        return vectors

    monkeypatch.setattr(Embedder, "embed_documents", documents)
    run = invoke("doctor", "--device", "cpu", "--json")
    assert run.code == (0 if is_right else 1), run.out
    outcomes = {check["name"]: check["passed"] for check in json.loads(run.out)["self_test"]}
    assert outcomes == {"embedding": True, "reranking": True, "embedding in bfloat16": is_right}


def test_doctor_tests_rerankers_converted_to_classification(invoke: Invoke, tmp_path: Path) -> None:
    from checkpoints import Qwen3ForSequenceClassification, make_checkpoint, small_tokenizer

    tokenizer = small_tokenizer(appends_end_of_text=False)
    folder = make_checkpoint(tmp_path, tokenizer, architecture=Qwen3ForSequenceClassification)
    run = invoke("doctor", "--device", "cpu", "--reranker", folder)
    assert run.code == 0, run.out


@pytest.mark.parametrize(
    ("component", "method", "failed", "passed"),
    [
        (Embedder, "embed_documents", "embedding", "reranking"),
        (Reranker, "score_pairs", "reranking", "embedding"),
    ],
)
def test_wrong_vectors_and_scores_fail_their_check(
    component: Any, method: str, failed: str, passed: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(component, method)
    monkeypatch.setattr(component, method, lambda self, inputs: right(self, inputs) * 1.001)
    run = invoke("doctor", "--device", "cpu")
    assert run.code == 1
    assert f"self-test {failed}: FAILED" in run.out
    assert f"self-test {passed}: passed" in run.out


def test_a_crash_inside_the_self_test_is_a_failed_check(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("kernel lost")

    monkeypatch.setattr(Reranker, "score_pairs", broken)
    run = invoke("doctor", "--device", "cpu")
    assert run.code == 1
    assert "FAILED: RuntimeError: kernel lost" in run.out


def test_a_model_that_is_not_there_is_bad_usage(invoke: Invoke, tmp_path: Path) -> None:
    run = invoke("doctor", "--device", "cpu", "--model", tmp_path / "none")
    assert run.code == 2
    assert "no such folder" in run.err


def test_a_device_that_is_not_there_is_bad_usage(invoke: Invoke) -> None:
    run = invoke("doctor", "--device", "cuda:99")
    assert run.code == 2
    assert "not available" in run.err
