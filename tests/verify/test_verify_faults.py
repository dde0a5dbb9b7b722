"""Every planted fault is caught and named; right servers pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty_server import NO, YES, Served, running
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.kinds import find_kind
from qwen3_rag.settings import EngineSettings
from qwen3_rag.verification import Report
from qwen3_rag.verification.endpoint import Endpoint, chosen_name
from qwen3_rag.verification.reference import Reference
from qwen3_rag.verification.reranking_faults import are_symmetric
from qwen3_rag.verification.subject import Subject, make_subject
from qwen3_rag.verification.verify_endpoint import find_ways, verify_endpoint
from safetensors.torch import load_file, save_file


def reference_of(kind: Any, folder: Path) -> Reference:
    return Reference(EngineSettings(kind, str(folder), device="cpu", dtype="float32"))


def subject_of(
    kind: Any,
    folder: Path,
    *,
    dimensions: int | None = None,
    tolerance: float | None = None,
    max_tokens: int | None = None,
    instruction: str | None = None,
) -> Subject:
    return make_subject(
        reference_of(kind, folder),
        instruction=instruction,
        tolerance=tolerance,
        norms_count=True,
        dimensions=dimensions,
        max_tokens=max_tokens,
    )


@pytest.fixture(scope="module")
def embedding(embedding_checkpoint: Path) -> Subject:
    return subject_of("embedding", embedding_checkpoint)


@pytest.fixture(scope="module")
def reranking(reranking_checkpoint: Path) -> Subject:
    return subject_of("reranking", reranking_checkpoint)


@pytest.fixture(scope="module")
def embedder(embedding_checkpoint: Path) -> Served:
    return Served(embedding_checkpoint)


@pytest.fixture(scope="module")
def reranker(reranking_checkpoint: Path) -> Served:
    return Served(reranking_checkpoint)


@pytest.fixture(autouse=True)
def _no_fault_is_left(embedder: Served, reranker: Served) -> Iterator[None]:
    yield
    embedder.fault = reranker.fault = ""
    embedder.form = reranker.form = lambda value, _: value
    embedder.listed = ["the-model"]


def verified(subject: Subject, served: Served, speaks: str, fault: str = "", **changes: Any) -> Report:
    served.fault = fault
    options: dict[str, Any] = {"send": "both", "template": "server", "dimensions": None, **changes}
    with running(served, speaks) as url, Endpoint(url, key=None, timeout=60) as endpoint:
        ways = find_ways(
            endpoint,
            subject.kind,
            server=options.pop("server", None),
            model="the-model",
            served_model=None,
            instruction=None,
            **options,
        )
        return verify_endpoint(subject, ways, model="the-model")


def named(report: Report, path: str) -> list[str]:
    """Faults named for the way of asking whose name holds `path`."""
    check = next(check for check in report.checks if path in check.path)
    return [finding.fault for finding in check.findings]


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
    ("speaks", "server", "paths"),
    [
        ("vllm", None, ["/classify, token ids", "/rerank, text"]),
        ("tei", None, ["/rerank, text"]),
        ("cohere", None, ["/rerank, text"]),
        ("jina", "jina", ["/rerank, text"]),
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


@pytest.mark.parametrize("length", [1, 2])
def test_scores_that_are_lists_are_malformed(length: int, reranking: Subject, reranker: Served) -> None:
    """numpy would compare lists of one with all right scores, and find a fault that fits."""
    reranker.form = lambda score, _: [score] * length
    report = verified(reranking, reranker, "cohere")
    assert named(report, "/rerank") == ["malformed"], report


def test_token_ids_are_right_where_only_the_text_path_is_wrong(embedding: Subject, embedder: Served) -> None:
    report = verified(embedding, embedder, "vllm", "chat-template")
    assert [check.passed for check in report.checks] == [True, False]
    assert not report.passed
    assert verified(embedding, embedder, "vllm", "chat-template", send="ids").passed


def test_text_is_a_note_by_default_where_ids_are_taken(reranking: Subject, reranker: Served) -> None:
    """A vLLM reranker as `qwen3-rag serve` starts it has no template for text, and needs none here."""
    report = verified(reranking, reranker, "vllm", "template-missing", send="auto")
    assert report.passed
    assert [check.is_note for check in report.checks] == [False, True]
    assert named(report, "/rerank") == ["template-missing"]
    assert not verified(reranking, reranker, "vllm", "template-missing", send="both").passed
    assert not verified(reranking, reranker, "vllm", "answers-swapped", send="auto").passed
    only_text = verified(reranking, reranker, "cohere", "template-missing", send="auto")
    assert not only_text.passed
    assert [check.is_note for check in only_text.checks] == [False]


def test_the_limit_of_a_truncating_server_is_named(embedding: Subject, embedder: Served) -> None:
    report = verified(embedding, embedder, "tei", "truncated")
    assert "256 tokens" in report.checks[0].findings[0].what


@pytest.fixture(scope="module")
def long_embedding(embedding_checkpoint: Path) -> Subject:
    return subject_of("embedding", embedding_checkpoint, max_tokens=2500)


@pytest.fixture(scope="module")
def undecided(reranking_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reranker with smaller log-odds: the other is so sure of its "no" that no end of a text matters."""
    folder = shutil.copytree(reranking_checkpoint, tmp_path_factory.mktemp("undecided") / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 0.2
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def long_reranking(undecided: Path) -> Subject:
    return subject_of("reranking", undecided, max_tokens=2500)


@pytest.fixture(scope="module")
def undecided_reranker(undecided: Path) -> Served:
    return Served(undecided)


def test_a_limit_above_the_fixed_texts_is_found_by_a_text_of_the_asked_length(
    embedding: Subject,
    long_embedding: Subject,
    long_reranking: Subject,
    embedder: Served,
    undecided_reranker: Served,
) -> None:
    fixed = verified(embedding, embedder, "tei", "truncated at 2048")
    assert fixed.passed
    assert 1300 < fixed.longest < 1500
    for subject, served, speaks in (
        (long_embedding, embedder, "tei"),
        (long_reranking, undecided_reranker, "cohere"),
    ):
        cut = verified(subject, served, speaks, "truncated at 2048")
        assert [finding.fault for finding in cut.checks[0].findings] == ["truncated"], cut
        assert "2048 tokens" in cut.checks[0].findings[0].what
        whole = verified(subject, served, speaks)
        assert whole.passed, whole
        assert whole.longest == 2500


def test_a_limit_just_below_the_asked_length_is_found_though_it_changes_less_than_is_tolerated(
    embedding_checkpoint: Path, embedder: Served
) -> None:
    subject = subject_of("embedding", embedding_checkpoint, max_tokens=2500, tolerance=2.0)
    cut = verified(subject, embedder, "tei", "truncated at 2470")
    assert named(cut, "/embed") == ["truncated"], cut
    assert "the limit is unknown" in cut.checks[0].findings[0].what
    assert verified(subject, embedder, "tei", "bfloat16").passed


def test_rounding_to_bfloat16_passes_at_any_length(
    long_embedding: Subject, long_reranking: Subject, embedder: Served, undecided_reranker: Served
) -> None:
    assert verified(long_embedding, embedder, "tei", "bfloat16").passed
    assert verified(long_reranking, undecided_reranker, "cohere", "bfloat16").passed


def test_a_length_at_which_a_reranker_shows_no_cut_is_refused(reranking_checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="a limit would not show"):
        subject_of("reranking", reranking_checkpoint, max_tokens=2500)


@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_a_length_that_an_instruction_takes_up_is_refused(
    kind: str, embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    folder = embedding_checkpoint if kind == "embedding" else reranking_checkpoint
    with pytest.raises(ConfigurationError, match=r"256 is too few: .* has [345]\d\d tokens already"):
        subject_of(kind, folder, max_tokens=256, instruction="word " * 300)


@pytest.mark.parametrize("length", [300, 1000, 2049])
def test_the_longest_text_is_exactly_as_long_as_asked(length: int, embedding_checkpoint: Path) -> None:
    subject = subject_of("embedding", embedding_checkpoint, max_tokens=length)
    assert max(len(one.token_ids) for one in subject.inputs) == length


def test_of_several_models_the_one_that_is_meant_is_asked(embedding: Subject, embedder: Served) -> None:
    embedder.listed = ["llama3.2:latest", "the-model"]
    report = verified(embedding, embedder, "openai")
    assert report.passed, report
    assert report.served_model == "the-model"
    embedder.listed = ["llama3.2:latest", "another"]
    with pytest.raises(ConfigurationError, match=r"'llama3.2:latest', 'another'; say with --served-model"):
        verified(embedding, embedder, "openai")


@pytest.mark.parametrize(
    ("listed", "model", "name"),
    [
        ([], "Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B"),
        (["any"], "demo", "any"),
        (["a", "Qwen3-Embedding-0.6B"], "Qwen/Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B"),
        (["a", "Qwen/Qwen3-Embedding-0.6B"], "/models/Qwen3-Embedding-0.6B/", "Qwen/Qwen3-Embedding-0.6B"),
        (["x/demo", "demo", "y/demo"], "demo", "demo"),
    ],
)
def test_a_name_is_chosen_whole_before_by_its_last_part(listed: list[str], model: str, name: str) -> None:
    assert chosen_name(model, listed) == name


def test_a_last_part_that_several_models_have_chooses_none() -> None:
    with pytest.raises(ConfigurationError, match="--served-model"):
        chosen_name("demo", ["x/demo", "y/demo"])


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://dashscope.aliyuncs.com/api/v1", "dashscope"),
        ("https://work-1.cn-beijing.maas.aliyuncs.com", "dashscope"),
        ("https://1234.cn-hangzhou.pai-eas.aliyuncs.com/api/predict/emb", "openai"),
        ("https://host/dashscope.aliyuncs.com", "openai"),
    ],
)
def test_only_dashscopes_own_hosts_are_taken_for_it(
    url: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen3_rag.verification.endpoint.Connection", lambda *_, **__: Silent())
    assert Endpoint(url, key=None, timeout=1).detect("embedding") == server


class Silent:
    """A connection to a server that knows no question."""

    def get(self, _: str) -> None:
        return None


def test_a_server_that_cuts_to_the_asked_dimensions_passes(
    embedding_checkpoint: Path, embedder: Served
) -> None:
    subject = subject_of("embedding", embedding_checkpoint, dimensions=32)
    assert verified(subject, embedder, "vllm", dimensions=32).passed
    assert named(verified(subject, embedder, "vllm", "wrong-dimensions", dimensions=32), "ids") == [
        "wrong-dimensions"
    ]


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


def test_only_text_shows_a_cosine_by_being_symmetric(reranking: Subject, reranker: Served) -> None:
    assert are_symmetric(np.array([0.1, 0.9], np.float32), np.array([0.11, 0.89], np.float32))
    assert not are_symmetric(np.array([0.1, 0.9], np.float32), np.array([0.2, 0.8], np.float32))
    assert not are_symmetric(np.zeros(2, np.float32), np.zeros(2, np.float32)), "no answer tells anything"
    assert named(verified(reranking, reranker, "vllm", "another model", send="ids"), "ids") == ["unexplained"]


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


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("answers-swapped", ["answers-swapped"]),
        ("wrong-answer-tokens", ["wrong-answer-tokens"]),
        ("one-answer-token", ["one-answer-token"]),
        ("log-odds", ["log-odds"]),
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


def test_a_client_that_renders_the_template_itself_is_checked_too(reranking: Subject, reranker: Served) -> None:
    joins = verified(reranking, reranker, "cohere", "rendered by the client", template="client")
    assert joins.passed, joins
    twice = verified(reranking, reranker, "cohere", template="client")
    assert named(twice, "/rerank") == ["template-doubled"], twice


def test_the_kind_is_found_from_names_files_and_tokenizer(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    assert find_kind(EngineSettings("embedding", str(embedding_checkpoint))) == "embedding"
    assert find_kind(EngineSettings("embedding", str(reranking_checkpoint))) == "reranking"


def test_the_server_computes_without_the_package() -> None:
    """Both sides of the comparison would share a mistake otherwise."""
    assert torch.get_default_dtype() is torch.float32
    source = (Path(__file__).parent / "faulty_server.py").read_text()
    assert "qwen3_rag" not in source
