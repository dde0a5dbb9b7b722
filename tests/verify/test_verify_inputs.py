"""Which texts are compared, and what of a check is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faulty_model import Served
from oracle import TASK
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.reference import Reference
from qwen3_rag.verification.subject import Subject
from qwen3_rag.verification.texts import LONG_DOCUMENTS, LONG_PAIRS, PAIRS, QUERIES, SHORT_DOCUMENTS
from subjects import subject_of, verified

SHORT = len(QUERIES) + len(SHORT_DOCUMENTS)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right does not matter, so nothing is computed."""
    monkeypatch.setattr(Reference, "states", lambda _, sequences: np.ones((len(sequences), 64), np.float32))


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("max_tokens", "count"), [(None, 2), (2047, 0), (2048, 2)])
def test_the_fixed_long_texts_are_sent_where_texts_of_2048_tokens_may_be(
    max_tokens: int | None, count: int, embedding_checkpoint: Path
) -> None:
    subject = subject_of("embedding", embedding_checkpoint, max_tokens=max_tokens)
    twins = 0 if max_tokens is None else 2
    assert len(subject.inputs) == SHORT + count + twins
    texts = [one.words for one in subject.inputs if isinstance(one.words, Text)]
    assert [text.is_query for text in texts] == [i < len(QUERIES) for i in range(len(subject.inputs))]
    assert [text.text for text in texts[SHORT : SHORT + count]] == list(LONG_DOCUMENTS[:count])


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_the_fixed_long_texts_are_not_sent_to_a_model_whose_context_is_shorter(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = request.getfixturevalue(f"{kind}_checkpoint")
    monkeypatch.setattr(Reference, "context", 1024)
    short = len(PAIRS) if kind == "reranking" else SHORT
    assert len(subject_of(kind, folder).inputs) == short
    with pytest.raises(ConfigurationError, match="must be 256 to 1024"):
        subject_of(kind, folder, max_tokens=1025)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("kind", ["embedding", "reranking"])
@pytest.mark.parametrize(("instruction", "expected"), [("Find it.", "Find it."), (None, TASK)])
def test_the_instruction_is_the_asked_or_the_default_one(
    instruction: str | None, expected: str, kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(f"{kind}_checkpoint")
    subject = subject_of(kind, folder, instruction=instruction)
    assert subject.instruction == expected
    first = subject.inputs[0].words
    assert not isinstance(first, Text) or first.prompt == f"Instruct: {expected}\nQuery:"


def test_a_rerankers_token_ids_hold_the_asked_instruction(reranking_checkpoint: Path, reranker: Served) -> None:
    """Sent text does not: this server knows the default one alone."""
    subject = subject_of("reranking", reranking_checkpoint, instruction="Find it.")
    report = verified(subject, reranker, "vllm")
    assert [check.passed for check in report.checks] == [True, False], report


@pytest.mark.parametrize("dimensions", [31, 65])
def test_dimensions_that_the_model_does_not_have_are_refused(
    dimensions: int, embedding_checkpoint: Path
) -> None:
    with pytest.raises(ConfigurationError, match=f"dimensions must be 32 to 64 .* got {dimensions}"):
        subject_of("embedding", embedding_checkpoint, dimensions=dimensions)


@pytest.mark.parametrize(
    ("kind", "server", "texts", "measure", "tolerance"),
    [
        ("embedding", "embedder", SHORT + len(LONG_DOCUMENTS), "distance of unit vectors", 0.1),
        ("reranking", "reranker", len(PAIRS) + len(LONG_PAIRS), "difference of P(yes)", 0.03),
    ],
)
def test_a_check_tells_what_was_compared_and_how(
    kind: str, server: str, texts: int, measure: str, tolerance: float, request: pytest.FixtureRequest
) -> None:
    subject: Subject = request.getfixturevalue(kind)
    (check,) = verified(subject, request.getfixturevalue(server), "tei").checks
    assert (check.texts, check.measure, check.tolerance) == (texts, measure, tolerance)
    assert check.longest == max(len(one.token_ids) for one in subject.inputs)
