"""Every planted fault of a reranking server is caught and named; right servers pass."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_model import NO, YES, Served
from qwen3_rag.verification.reranking_faults import are_symmetric
from qwen3_rag.verification.subject import Subject
from safetensors.torch import load_file, save_file
from subjects import named, reference_of, subject_of, verified


@pytest.mark.parametrize(
    ("speaks", "server", "paths"),
    [
        ("vllm", None, ["/classify, token ids", "/rerank, text"]),
        ("tei", None, ["/rerank, text"]),
        ("cohere", None, ["/rerank, text"]),
        ("jina", "jina", ["/rerank, text"]),
        ("llama.cpp", None, ["/rerank, text"]),
        ("cohere", "dashscope", ["DashScope text-rerank"]),
    ],
)
def test_a_right_reranking_server_passes(
    speaks: str, server: Any, paths: list[str], reranking: Subject, reranker: Served
) -> None:
    report = verified(reranking, reranker, speaks, server=server)
    assert report.passed, report
    assert [path in check.path for path, check in zip(paths, report.checks, strict=True)] == [True] * len(paths)
    assert all(check.difference is not None and check.difference < 1e-5 for check in report.checks)


def test_a_model_with_dashscopes_flat_api_is_asked_there(reranking: Subject, reranker: Served) -> None:
    report = verified(reranking, reranker, "cohere", server="dashscope", served_model="qwen3-rerank")
    assert report.passed, report
    assert [check.path for check in report.checks] == ["DashScope text-rerank, text"]


@pytest.mark.parametrize(
    "fault",
    [
        "template-missing",
        "template-doubled",
        "system-prompt-missing",
        "suffix-cut",
        "think-block-lost",
        "newline-lost",
        "blank-lines",
        "tags-lost",
        "turn-closed-twice",
        "missing-instruction",
        "doubled-instruction",
        "final-token-appended",
        "swapped-inputs",
        "cosine",
        "cosine of another model",
    ],
)
def test_a_faulty_rerank_template_is_named(fault: str, reranking: Subject, reranker: Served) -> None:
    report = verified(reranking, reranker, "cohere", fault)
    assert named(report, "/rerank") == [fault.removesuffix(" of another model")], report


def test_a_server_that_ignores_the_instruction_is_named(reranking_checkpoint: Path, reranker: Served) -> None:
    """As behind a gateway that drops the request's field. The stand-in reads none."""
    told = subject_of("reranking", reranking_checkpoint, instruction="Find recipes")
    report = verified(told, reranker, "cohere", instruction_field="instruction")
    assert named(report, "/rerank") == ["instruction-ignored"], report


def test_only_text_shows_a_cosine_by_being_symmetric(reranking: Subject, reranker: Served) -> None:
    assert are_symmetric(np.array([0.1, 0.9], np.float32), np.array([0.11, 0.89], np.float32))
    assert not are_symmetric(np.array([0.1, 0.9], np.float32), np.array([0.2, 0.8], np.float32))
    assert not are_symmetric(np.zeros(2, np.float32), np.zeros(2, np.float32)), "no answer tells anything"
    assert named(verified(reranking, reranker, "vllm", "another model", send="ids"), "ids") == ["unexplained"]


@pytest.mark.parametrize("fault", ["", "suffix-cut"])
def test_scores_that_are_right_or_explained_are_not_taken_for_cosines(
    fault: str, reranking: Subject, reranker: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen3_rag.verification.verify_endpoint.are_symmetric", lambda *_: True)
    assert named(verified(reranking, reranker, "cohere", fault), "/rerank") == ([fault] if fault else [])


@pytest.fixture(scope="module")
def converted(reranking_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reranker as a sequence classifier whose one row is that of "yes" less that of "no"."""
    folder = shutil.copytree(reranking_checkpoint, tmp_path_factory.mktemp("converted") / "model")
    weights = load_file(folder / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    weights["score.weight"] = (embedding[YES] - embedding[NO])[None].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("fault", ["", "wrong-answer-tokens", "one-answer-token", "answers-swapped"])
def test_a_wrong_head_is_named_with_a_converted_reference_too(
    fault: str, converted: Path, reranker: Served
) -> None:
    subject = subject_of("reranking", converted)
    report = verified(subject, reranker, "vllm", fault, send="ids")
    assert named(report, "/classify") == ([fault] if fault else []), report


def test_a_converted_head_that_is_not_of_the_embeddings_rows_names_no_answer(
    converted: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(converted, tmp_path / "trained")
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] + 0.1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert set(reference_of("reranking", folder).heads()) == {""}


@pytest.mark.parametrize("is_tied", [True, False])
def test_wrong_heads_are_the_heads_own_rows_of_other_families_answers(
    is_tied: bool, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    folder, name = reranking_checkpoint, "model.embed_tokens.weight"
    if not is_tied:
        folder = shutil.copytree(folder, tmp_path / "untied")
        weights, name = load_file(folder / "model.safetensors"), "lm_head.weight"
        weights[name] = weights["model.embed_tokens.weight"].flip(0).contiguous()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
        (folder / "config.json").write_text(json.dumps(config))
    rows = load_file(folder / "model.safetensors")[name].numpy()
    with reference_of("reranking", folder) as reference:
        heads = reference.heads()
        words = [("Yes", "No"), ("true", "false"), ("True", "False"), ("1", "0")]
        others = [rows[reference.ids(yes)[0]] - rows[reference.ids(no)[0]] for yes, no in words]
    np.testing.assert_allclose(heads[""], [rows[YES] - rows[NO]], rtol=1e-6)
    np.testing.assert_array_equal(heads["one-answer-token"], [rows[YES]])
    np.testing.assert_array_equal(heads["wrong-answer-tokens"], others)


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("answers-swapped", ["answers-swapped"]),
        ("wrong-answer-tokens", ["wrong-answer-tokens"]),
        ("one-answer-token", ["one-answer-token"]),
        ("log-odds", ["log-odds"]),
        ("sigmoid-twice", ["sigmoid-twice"]),
        ("scaled", ["scaled"]),
        ("truncated", ["truncated"]),
        ("another model", ["unexplained"]),
        ("refused", ["refused"]),
    ],
)
@pytest.mark.parametrize("path", ["/classify", "/rerank"])
def test_a_faulty_reranking_model_is_named(
    fault: str, names: list[str], path: str, reranking: Subject, reranker: Served
) -> None:
    report = verified(reranking, reranker, "vllm", fault, send="ids" if path == "/classify" else "text")
    assert named(report, path) == names, report


def test_scaled_and_shifted_log_odds_are_told_with_factor_and_shift(
    reranking: Subject, reranker: Served
) -> None:
    reranker.form = lambda p, _: 1 / (1 + math.exp(-1) * ((1 - p) / p) ** 0.5)
    report = verified(reranking, reranker, "cohere")
    assert named(report, "/rerank") == ["scaled"], report
    assert "right log-odds times 0.5 plus 1 give the answers" in report.checks[0].findings[0].what


@pytest.mark.parametrize(
    "form",
    [lambda p, _: 0.5 + 1e-3 * math.sin(1e5 * p), lambda *_: 0.5, lambda *_: 0, lambda *_: -18.4],
    ids=["nearly", "a half", "zero", "below"],
)
def test_the_same_score_for_all_is_named_as_such_and_not_as_a_fault_that_gives_about_it(
    form: Any, reranking: Subject, reranker: Served
) -> None:
    reranker.form = form
    assert named(verified(reranking, reranker, "cohere"), "/rerank") == ["constant"]


def test_scores_that_a_scale_fits_roughly_are_not_taken_for_scaled(
    reranking: Subject, reranker: Served
) -> None:
    reranker.form = lambda p, _: 1 / (1 + math.exp(-1) * ((1 - p) / p) ** 0.5) + 0.01 * math.sin(1e5 * p)
    assert named(verified(reranking, reranker, "cohere"), "/rerank") == ["unexplained"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda score, _: score, []),
        (lambda score, _: score - 0.5, ["maybe cosines"]),
        (lambda score, _: 10 * score, ["maybe log-odds"]),
        (lambda score, _: -10 * score, ["maybe log-odds"]),
    ],
    ids=["probabilities", "from -1 to 1", "above 1", "below -1"],
)
def test_what_is_no_probability_and_unexplained_is_told_with_a_guess(
    form: Any, said: list[str], reranking: Subject, reranker: Served
) -> None:
    reranker.form = form
    report = verified(reranking, reranker, "cohere", "another model")
    (found,) = report.checks[0].findings
    assert found.fault == "unexplained", report
    assert re.findall("maybe (?:cosines|log-odds)", found.what) == said


def test_a_client_that_renders_the_template_itself_is_checked_too(reranking: Subject, reranker: Served) -> None:
    joins = verified(reranking, reranker, "cohere", "rendered by the client", template="client")
    assert joins.passed, joins
    twice = verified(reranking, reranker, "cohere", template="client")
    assert named(twice, "/rerank") == ["template-doubled"], twice


@pytest.mark.parametrize("length", [1, 2])
def test_scores_that_are_lists_are_malformed(length: int, reranking: Subject, reranker: Served) -> None:
    """numpy would compare lists of one with all right scores, and find a fault that fits."""
    reranker.form = lambda score, _: [score] * length
    report = verified(reranking, reranker, "cohere")
    assert named(report, "/rerank") == ["malformed"], report
