"""Limits on length are found, up to the length that is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faulty_model import Served
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification import reranking_faults
from qwen3_rag.verification.diagnosis import EXACT
from qwen3_rag.verification.lengths import check_length, check_room, document_of_length, longest_pair
from qwen3_rag.verification.reference import Reference
from qwen3_rag.verification.reranking_faults import Pair, right_ids
from qwen3_rag.verification.subject import Subject
from qwen3_rag.verification.texts import QUERIES
from safetensors.torch import load_file, save_file
from subjects import named, reference_of, subject_of, verified


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


def test_lengths_are_taken_from_256_to_the_whole_context_if_a_short_text_fits() -> None:
    for length in (None, 256, 4096):
        check_length(length, 4096)
    for length in (255, 4097):
        with pytest.raises(ConfigurationError, match=f"must be 256 to 4096 .* got {length}"):
            check_length(length, 4096)
    check_room(256, 256)
    with pytest.raises(ConfigurationError, match=r"256 is too few: .* has 257 tokens already"):
        check_room(257, 256)


def test_the_limit_of_a_truncating_server_is_named_with_what_is_lost(
    embedding: Subject, embedder: Served, reranking: Subject, reranker: Served
) -> None:
    for fault in ("truncated", "truncated without final token"):
        report = verified(embedding, embedder, "tei", fault)
        assert "at about 256 tokens" in report.checks[0].findings[0].what
        assert (report.checks[0].difference or 0) > 0.1, "that of long texts counts"
    for fault, lost in (("truncated", "template"), ("truncated at 256", "document")):
        report = verified(reranking, reranker, "tei", fault)
        assert f"at about 256 tokens, the {lost}'s end being lost" in report.checks[0].findings[0].what
        assert (report.checks[0].difference or 0) > EXACT


@pytest.mark.parametrize("limit", [512, 1024])
def test_a_limit_that_cuts_only_one_of_the_long_texts_is_named(
    limit: int, embedding: Subject, embedder: Served
) -> None:
    (check,) = verified(embedding, embedder, "tei", f"truncated at {limit}").checks
    assert [found.fault for found in check.findings] == ["truncated"], check
    assert f"at about {limit} tokens" in check.findings[0].what


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


@pytest.mark.parametrize(
    ("losses", "chosen", "tried"),
    [
        ([0.11], 0, 1),
        ([0.01, 0.2], 1, 2),
        ([0.01, 0.09, 0.02, 0.03], 1, 4),
        ([1e-4, 1e-4, 1e-4, 1.05e-3], 3, 4),
    ],
)
def test_queries_are_tried_until_one_shows_the_end_clearly_else_the_clearest_is_taken(
    losses: list[float],
    chosen: int,
    tried: int,
    reranking_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Pair] = []

    def loss(_: Reference, pair: Pair, __: str) -> float:
        seen.append(pair)
        return losses[len(seen) - 1]

    monkeypatch.setattr(reranking_faults, "loss_by_cutting", loss)
    with reference_of("reranking", reranking_checkpoint) as reference:
        pair = longest_pair(reference, 300, "Find it.")
        assert len(right_ids(reference, pair, "Find it.")) == 300
    assert pair == seen[chosen]
    assert [query for query, _ in seen] == list(QUERIES[:tried])


def test_a_cut_that_changes_scores_by_little_more_than_rounding_does_is_taken_for_none(
    reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranking_faults, "loss_by_cutting", lambda *_: 0.95e-3)
    with (
        reference_of("reranking", reranking_checkpoint) as reference,
        pytest.raises(ConfigurationError, match="a limit would not show"),
    ):
        longest_pair(reference, 300, "Find it.")


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


@pytest.mark.parametrize(
    ("tokens", "per_word", "words"), [(21, 2, 10), (20, 2, 10), (20, 1, 20), (6, 2, 3), (3, 1, 3), (7, 2, 3)]
)
def test_a_document_is_filled_up_to_its_end_with_as_many_words_as_fit(
    tokens: int, per_word: int, words: int
) -> None:
    made = document_of_length(tokens, lambda document: per_word * len(document.split()), "so it ends")
    assert len(made.split()) == words
    assert made.endswith("so it ends")


@pytest.mark.parametrize("tokens", range(3, 24))
def test_a_gap_that_is_too_short_for_the_next_word_is_filled(tokens: int) -> None:
    def length(document: str) -> int:
        return sum(1 if word in ("and", "so", "it", "ends") else 2 for word in document.split())

    assert length(document_of_length(tokens, length, "so it ends")) == tokens


def test_an_end_that_is_longer_than_the_asked_length_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="5 is too few"):
        document_of_length(5, lambda document: 2 * len(document.split()), "so it ends")
