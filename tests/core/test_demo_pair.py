"""The trained demo pair is a Qwen3 checkpoint like any other, and its rankings mean something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qwen3_rag import Embedder, Reranker, WrongModelKindError, demo
from qwen3_rag.demo.corpus import standard_library_passages
from qwen3_rag.demo.questions import EXPECTED, answers
from qwen3_rag.demo.searches import CORE, Models
from qwen3_rag.demo.session import run_session
from rankings import EMBEDDER, PASSAGES, QUESTIONS, RERANKER

MODELS = Path(demo.__file__).parent / "models"
QUERIES = ["What is the capital of China?", "Explain gravity"]
DOCUMENTS = [
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects "
    "and is responsible for the movement of planets around the sun.",
]
NAMES, TEXTS = list(PASSAGES), list(PASSAGES.values())


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with Embedder(**EMBEDDER) as embedder:
        yield embedder


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker(**RERANKER) as reranker:
        yield reranker


@pytest.mark.parametrize(("question", "right"), QUESTIONS.items())
def test_the_right_passage_is_first(embedder: Embedder, reranker: Reranker, question: str, right: str) -> None:
    cosines = embedder.embed_documents(TEXTS) @ embedder.embed_queries([question])[0]
    assert NAMES[cosines.argmax()] == right
    assert NAMES[reranker.rerank(question, TEXTS)[0].index] == right


def test_the_published_example_is_in_the_right_order(embedder: Embedder, reranker: Reranker) -> None:
    similarity = embedder.embed_queries(QUERIES) @ embedder.embed_documents(DOCUMENTS).T
    assert similarity.argmax(axis=1).tolist() == [0, 1]
    scores = [reranker.score(query, DOCUMENTS) for query in QUERIES]
    assert np.argmax(scores, axis=1).tolist() == [0, 1]


def test_questions_about_the_standard_library_lead_to_a_module_that_answers_them() -> None:
    """Ten were fixed before training; at least eight have an expected module in the first three results."""
    passages = standard_library_passages()
    (run,) = run_session(passages, list(EXPECTED), [CORE], Models("demo", "demo", "cpu"))
    answered = [
        question
        for question, answer in run.answers.items()
        if answers(question, (passages[item.passage] for item in answer.reranked[:3]))
    ]
    assert len(answered) >= 8, set(EXPECTED) - set(answered)


@pytest.mark.parametrize("model", ["demo-embedding", "demo-reranker"])
def test_the_base_of_positions_stands_where_each_release_of_transformers_looks_for_it(model: str) -> None:
    """Transformers 4 reads `rope_theta`, 5 `rope_parameters`."""
    config = json.loads((MODELS / model / "config.json").read_text(encoding="utf-8"))
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 1_000_000.0


def test_the_demo_reranker_is_known_from_its_files() -> None:
    folder = str(MODELS / "demo-reranker")
    with pytest.raises(WrongModelKindError, match="give it to Reranker"):
        Embedder(folder).load()
    with Reranker(folder) as reranker:
        assert reranker.score("gzip", ["compress files"]).shape == (1,)


def test_a_text_without_words_has_a_vector_too(embedder: Embedder) -> None:
    lengths = np.linalg.norm(embedder.embed_documents(["", " "]), axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-6)


def test_the_cards_give_the_figures_that_were_measured() -> None:
    report = json.loads((MODELS / "report.json").read_text(encoding="utf-8"))
    embedder, reranker = (
        (MODELS / name / "README.md").read_text(encoding="utf-8")
        for name in ("demo-embedding", "demo-reranker")
    )
    at = " / ".join(f"{report['embedder_at'][size]:.3f}" for size in ("128", "64", "32"))
    for name in ("embedder", "embedder_unseen", "bm25"):
        assert f"| {report[name]:.3f} |" in embedder, name
    assert f"| {at} |" in embedder
    for name in ("embedder", "reranked", "reranked_unseen", "auc"):
        assert f"| {report[name]:.3f} |" in reranker, name
    assert f"| {report['questions']} |" in reranker
    assert report["missing_packages"] == []


def test_both_together_are_at_most_14_megabytes() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) <= 14_000_000
