"""Every planted fault of an embedding server is caught and named; right servers pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_model import Served
from qwen3_rag.verification.subject import Subject
from subjects import named, subject_of, verified


@pytest.mark.parametrize(
    ("speaks", "server", "paths"),
    [
        ("vllm", None, ["/v1/embeddings, token ids", "/v1/embeddings, text"]),
        ("tei", None, ["/embed, text"]),
        ("openai", None, ["/v1/embeddings, text"]),
        ("openai", "dashscope", ["DashScope text-embedding"]),
    ],
)
def test_a_right_embedding_server_passes(
    speaks: str, server: Any, paths: list[str], embedding: Subject, embedder: Served
) -> None:
    report = verified(embedding, embedder, speaks, server=server)
    assert report.passed, report
    assert [path in check.path for path, check in zip(paths, report.checks, strict=True)] == [True] * len(paths)
    assert all(check.difference is not None and check.difference < 1e-5 for check in report.checks)


@pytest.mark.parametrize(
    "fault",
    [
        "missing-final-token",
        "doubled-final-token",
        "wrong-final-token",
        "extra-first-token",
        "mean-pooling",
        "first-token-pooling",
        "not-normalised",
        "wrong-dimensions",
        "out-of-order",
        "batch-dependent",
        "truncated",
        "not-finite",
        "refused",
    ],
)
@pytest.mark.parametrize("path", ["token ids", "text"])
def test_a_faulty_embedding_model_is_named(fault: str, path: str, embedding: Subject, embedder: Served) -> None:
    report = verified(embedding, embedder, "vllm", fault, send="ids" if path == "token ids" else "text")
    assert not report.passed
    found = named(report, path)
    assert found[0] == fault, report
    if fault != "batch-dependent":  # padding that is seen changes all numbers, whatever else is said of them
        assert found == [fault], report


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("missing-instruction", ["missing-instruction"]),
        ("doubled-instruction", ["doubled-instruction"]),
        ("default-prompt", ["doubled-instruction", "instruction-on-documents"]),
        ("instruction-on-documents", ["instruction-on-documents"]),
        ("instruction-spacing", ["instruction-spacing"]),
        ("newlines-replaced", ["newlines-replaced"]),
        ("white-space-stripped", ["white-space-stripped"]),
        ("lower-cased", ["lower-cased"]),
        ("chat-template", ["chat-template"]),
        ("truncated without final token", ["truncated"]),
        ("another model", ["unexplained"]),
    ],
)
def test_a_faulty_treatment_of_text_is_named(
    fault: str, names: list[str], embedding: Subject, embedder: Served
) -> None:
    report = verified(embedding, embedder, "tei", fault)
    assert named(report, "/embed") == names, report


@pytest.mark.parametrize(
    ("form", "fault", "seen"),
    [
        (lambda *_: 0.5, "malformed", "expected a list of numbers, got a float"),
        (lambda *_: None, "malformed", "expected a list of numbers, got null"),
        (lambda *_: [], "malformed", "theirs are [0]"),
        (lambda vector, count: vector[: 32 if count == 1 else 64], "malformed", "theirs are [32, 64]"),
        (lambda vector, _: [None, *vector[1:]], "not-finite", "null in place of a number"),
        (lambda vector, count: [np.nan if count == 1 else x for x in vector], "not-finite", "3 of 3 texts"),
        (lambda vector, _: [0.0 for _ in vector], "unexplained", "11 of 11 short texts are off"),
    ],
    ids=["a number", "null", "empty", "other length alone", "nulls", "NaN alone", "zeros"],
)
@pytest.mark.filterwarnings("error")
def test_an_answer_that_holds_no_vectors_is_named(
    form: Any, fault: str, seen: str, embedding: Subject, embedder: Served
) -> None:
    embedder.form = form
    report = verified(embedding, embedder, "openai")
    assert named(report, "text")[0] == fault, report
    assert "batch-dependent" not in named(report, "text")
    assert seen in report.checks[0].findings[0].what


def test_vectors_longer_than_the_models_are_told_of_and_not_compared(
    embedding: Subject, embedder: Served
) -> None:
    """Another size of the model is served."""
    embedder.form = lambda vector, _: [*vector, *[0.0] * 8]
    (check,) = verified(embedding, embedder, "openai").checks
    assert [found.fault for found in check.findings] == ["wrong-dimensions"], check
    assert "72 numbers where 64 are right" in check.findings[0].what
    assert check.difference is None


@pytest.mark.parametrize(("norm", "faults"), [(0.995, []), (1.005, []), (0.985, ["not-normalised"])])
def test_a_length_may_be_off_by_the_rounding_of_bfloat16(
    norm: float, faults: list[str], embedding: Subject, embedder: Served
) -> None:
    embedder.form = lambda vector, _: [norm * x for x in vector]
    assert named(verified(embedding, embedder, "openai"), "text") == faults


def test_token_ids_are_right_where_only_the_text_path_is_wrong(embedding: Subject, embedder: Served) -> None:
    report = verified(embedding, embedder, "vllm", "chat-template")
    assert [check.passed for check in report.checks] == [True, False]
    assert not report.passed
    assert verified(embedding, embedder, "vllm", "chat-template", send="ids").passed


def test_rounding_to_bfloat16_passes(
    embedding: Subject, reranking: Subject, embedder: Served, reranker: Served
) -> None:
    rough = verified(embedding, embedder, "vllm", "bfloat16")
    assert rough.passed, rough
    assert rough.checks[0].difference is not None
    assert rough.checks[0].difference > 1e-3
    scores = verified(reranking, reranker, "vllm", "bfloat16")
    assert scores.passed, scores


def test_a_generous_tolerance_hides_no_known_fault_and_lets_rounding_pass(
    embedding_checkpoint: Path, reranking_checkpoint: Path, embedder: Served, reranker: Served
) -> None:
    """A lost line end can change scores by less than rounding does, but in a way of its own."""
    vectors = subject_of("embedding", embedding_checkpoint, tolerance=2.0)
    assert named(verified(vectors, embedder, "tei", "newlines-replaced"), "/embed") == ["newlines-replaced"]
    assert verified(vectors, embedder, "tei", "bfloat16").passed
    scores = subject_of("reranking", reranking_checkpoint, tolerance=1.0)
    assert named(verified(scores, reranker, "cohere", "newline-lost"), "/rerank") == ["newline-lost"]
    assert verified(scores, reranker, "cohere", "bfloat16").passed
