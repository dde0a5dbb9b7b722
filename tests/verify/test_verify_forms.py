"""A fault has several forms, and is named in each; two at once are both named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from faulty_model import QUERY_PROMPT, Served
from oracle import RERANK_PREFIX, RERANK_SUFFIX, TASK
from qwen3_rag.verification.subject import Subject
from subjects import named, verified

END = "<|endoftext|>"
USER, TURN_END, ANSWER = "<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n"


def body(query: str, document: str) -> str:
    return f"<Instruct>: {TASK}\n<Query>: {query}\n<Document>: {document}"


def whole(query: str, document: str) -> str:
    return RERANK_PREFIX + body(query, document) + RERANK_SUFFIX


def head(query: str) -> str:
    return RERANK_PREFIX + body(query, "").removesuffix(" ")


def tail(document: str) -> str:
    return f" {document}{RERANK_SUFFIX}"


def ending_in(suffix: str) -> Callable[[str, str], tuple[str, ...]]:
    return lambda query, document: (RERANK_PREFIX, body(query, document), suffix)


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        ("template-missing", lambda q, d: (q, d, END)),
        ("template-missing", lambda q, d: (q, END, d, END)),
        ("template-missing", lambda q, d: (f"{q} {d}",)),
        ("template-missing", lambda q, d: (f"{q}\n{d}",)),
        ("template-missing", lambda q, d: (USER + f"{q}\n{d}" + TURN_END + ANSWER,)),
        ("template-missing", lambda q, d: (USER + f"{q}{d}" + TURN_END + ANSWER,)),
        ("template-missing", lambda q, d: (body(q, d),)),
        ("template-doubled", lambda q, d: (RERANK_PREFIX, body(head(q), tail(d)), RERANK_SUFFIX)),
        ("template-doubled", lambda q, d: (RERANK_PREFIX, whole(q, d), RERANK_SUFFIX)),
        ("system-prompt-missing", lambda q, d: (body(q, d), RERANK_SUFFIX)),
        ("suffix-cut", ending_in(TURN_END)),
        ("think-block-lost", ending_in(TURN_END + ANSWER + "<think>\n")),
        ("newline-lost", ending_in(RERANK_SUFFIX.rstrip("\n"))),
        ("turn-closed-twice", ending_in(RERANK_SUFFIX + TURN_END)),
        ("missing-instruction", lambda q, d: (RERANK_PREFIX, body(q, d).replace(TASK, ""), RERANK_SUFFIX)),
        ("newlines-replaced", lambda q, d: (whole(q.replace("\n", " "), d.replace("\n", " ")),)),
        ("white-space-stripped", lambda q, d: (whole(q.strip(), d.strip()),)),
        ("lower-cased", lambda q, d: (whole(q.lower(), d.lower()),)),
    ],
)
def test_every_form_of_a_faulty_rerank_template_is_named(
    fault: str,
    parts: Callable[[str, str], tuple[str, ...]],
    reranking: Subject,
    reranker: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reranker, "parts", parts)
    report = verified(reranking, reranker, "cohere")
    assert named(report, "/rerank") == [fault], report


def chat(user: Callable[[str], str], answer: str) -> Callable[[str], str]:
    return lambda text: user(text) + TURN_END + answer


def with_system_turn(text: str) -> str:
    prompt = QUERY_PROMPT if text.startswith(QUERY_PROMPT) else ""
    system = f"<|im_start|>system\n{prompt}{TURN_END}" if prompt else ""
    return system + USER + text.removeprefix(prompt)


@pytest.mark.parametrize(
    ("fault", "rendered"),
    [
        ("instruction-spacing", lambda text: text.replace("\nQuery:", " Query:")),
        ("newlines-replaced", lambda text: text.replace("\n", " ").replace(" Query:", "\nQuery:")),
        ("chat-template", chat(lambda text: USER + text, "")),
        ("chat-template", chat(lambda text: USER + text, ANSWER + "<think>\n\n</think>\n\n")),
        ("chat-template", chat(with_system_turn, "")),
    ],
)
def test_every_form_of_a_faulty_treatment_of_text_is_named(
    fault: str,
    rendered: Callable[[str], str],
    embedding: Subject,
    embedder: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedder, "rendered", rendered)
    report = verified(embedding, embedder, "tei")
    assert named(report, "/embed") == [fault], report


@pytest.mark.parametrize(
    "faults",
    [
        "lower-cased+missing-final-token",
        "missing-instruction+extra-first-token",
        "mean-pooling+missing-final-token",
    ],
)
def test_two_faults_of_an_embedding_server_are_both_named(
    faults: str, embedding: Subject, embedder: Served
) -> None:
    report = verified(embedding, embedder, "tei", faults)
    assert named(report, "/embed") == faults.split("+"), report


@pytest.mark.parametrize(
    "faults", ["suffix-cut+log-odds", "newline-lost+answers-swapped", "tags-lost+one-answer-token"]
)
def test_two_faults_of_a_reranking_server_are_both_named(
    faults: str, reranking: Subject, reranker: Served
) -> None:
    report = verified(reranking, reranker, "cohere", faults)
    assert named(report, "/rerank") == faults.split("+"), report


@pytest.mark.parametrize("fault", ["out-of-order", "batch-dependent", "not-finite"])
def test_a_fault_of_both_kinds_is_named_of_a_reranker_too(
    fault: str, reranking: Subject, reranker: Served
) -> None:
    assert named(verified(reranking, reranker, "tei", fault), "/rerank")[0] == fault


@pytest.mark.parametrize("closing", ["", END])
@pytest.mark.parametrize("prompt", ["", QUERY_PROMPT])
@pytest.mark.parametrize("form", [lambda cosine, _: cosine, lambda cosine, _: (1 + cosine) / 2])
def test_cosines_of_the_rerankers_own_weights_are_named_however_they_are_computed(
    form: Callable[[float, int], float],
    prompt: str,
    closing: str,
    reranking: Subject,
    reranker: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the instruction before queries, swapping query and document shows nothing."""
    monkeypatch.setattr(reranker, "embedded_pair", lambda q, d: (prompt + q + closing, d + closing))
    reranker.form = form
    assert named(verified(reranking, reranker, "cohere", "cosine"), "/rerank") == ["cosine"]
