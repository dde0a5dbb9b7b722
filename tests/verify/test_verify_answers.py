"""How answers are read: one value per input, in the inputs' order, or a finding that says what came."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from qwen3_rag.backends.remote.keys import ApiKey
from qwen3_rag.backends.remote.servers.answers import UnusableAnswerError
from qwen3_rag.verification.connection import AnswerError, Connection
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.endpoint import Endpoint
from qwen3_rag.verification.routes import Route, routes
from qwen3_rag.verification.subject import Input

KEY = "k-5f1d-" + "not-a-real-one"


def ways(server: Any, kind: Any, model: str = "m") -> list[Route]:
    return routes(
        "http://h",
        server,
        kind,
        model=model,
        template="server",
        instruction="T",
        instruction_field=None,
        dimensions=None,
    )


def items(index: str, value: str, *, found: Callable[[Any], Any] = lambda one: one) -> list[dict[str, Any]]:
    """The second input's value first."""
    return [{index: 1, value: found("b")}, {index: 0, value: found("a")}]


@pytest.mark.parametrize(
    ("server", "kind", "model", "answers"),
    [
        ("openai", "embedding", "m", [{"data": items("index", "embedding")}]),
        ("vllm", "embedding", "m", [{"data": items("index", "embedding")}] * 2),
        ("tei", "embedding", "m", [["a", "b"]]),
        ("dashscope", "embedding", "m", [{"output": {"embeddings": items("text_index", "embedding")}}]),
        (
            "vllm",
            "reranking",
            "m",
            [
                {"data": items("index", "probs", found=lambda one: [one])},
                {"results": items("index", "relevance_score")},
            ],
        ),
        ("tei", "reranking", "m", [items("index", "score")]),
        ("cohere", "reranking", "m", [{"results": items("index", "relevance_score")}]),
        ("jina", "reranking", "m", [{"results": items("index", "relevance_score")}]),
        ("jina", "reranking", "m", [items("index", "score")]),
        ("dashscope", "reranking", "m", [{"output": {"results": items("index", "relevance_score")}}]),
        ("dashscope", "reranking", "qwen3-rerank", [{"results": items("index", "relevance_score")}]),
    ],
)
def test_values_are_read_in_the_inputs_order_and_none_may_be_missing(
    server: str, kind: str, model: str, answers: list[Any]
) -> None:
    for way, answer in zip(ways(server, kind, model), answers, strict=True):
        assert way.read_answer(answer, 2) == ["a", "b"]
        for wrong in (1, 3):
            with pytest.raises(UnusableAnswerError, match=f"2 values came back for {wrong} inputs"):
                way.read_answer(answer, wrong)
        for other in ({}, None, "busy"):
            with pytest.raises(UnusableAnswerError):
                way.read_answer(other, 2)


@pytest.mark.parametrize(
    ("server", "model", "answer"),
    [
        ("tei", "m", [{"score": 0.5}]),
        ("cohere", "m", {"results": [{"relevance_score": 0.5}]}),
        ("jina", "m", [{"score": 0.5}]),
        ("dashscope", "m", {"output": {"results": [{"relevance_score": 0.5}]}}),
        ("dashscope", "qwen3-rerank", {"results": [{"relevance_score": 0.5}]}),
    ],
)
def test_scores_that_are_sorted_and_not_numbered_are_not_compared(server: str, model: str, answer: Any) -> None:
    way = ways(server, "reranking", model)[-1]
    assert way.read_answer(answer, 1) == [0.5]
    two = json.loads(json.dumps(answer).replace("[{", '[{"score": 0.9, "relevance_score": 0.9}, {'))
    with pytest.raises(UnusableAnswerError, match="whose they are is unknown"):
        way.read_answer(two, 2)


def endpoint_that_answers(
    answer: Callable[[dict[str, Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Endpoint, list[int]]:
    """Return a server, and a list that fills with the number of inputs of each request."""
    sizes: list[int] = []

    def post(_: Connection, __: str, body: dict[str, Any]) -> Any:
        sizes.append(len(body["documents"] if "documents" in body else body["input"]))
        return answer(body)

    monkeypatch.setattr(Connection, "post", post)
    return Endpoint("http://h", key=ApiKey(KEY, source="test"), timeout=5), sizes


def test_inputs_go_in_requests_of_a_few_and_of_one_query_and_their_values_come_back_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [Input((query, f"{query}{n}"), []) for n in range(9) for query in "pq"]

    def answer(body: dict[str, Any]) -> Any:
        assert all(document.startswith(body["query"]) for document in body["documents"])
        return {"results": [{"index": i, "relevance_score": text} for i, text in enumerate(body["documents"])]}

    endpoint, sizes = endpoint_that_answers(answer, monkeypatch)
    (way,) = ways("cohere", "reranking")
    with endpoint:
        assert endpoint.ask(way, pairs) == [one.words[1] for one in pairs]
        assert max(sizes) <= 10, "DashScope takes no more"
        assert sum(sizes) == 18
        assert len(sizes) <= 6
        sizes.clear()
        assert endpoint.ask(way, pairs[:3], at_once=1) == ["p0", "q0", "p1"]
        assert sizes == [1, 1, 1]


@pytest.mark.parametrize(
    ("answer", "fault", "said"),
    [
        ({"data": []}, "malformed", "0 values came back for 1 inputs"),
        ({KEY: 1}, "malformed", "has no 'data'"),
        ([1], "malformed", "has no 'data'"),
        ({"detail": f"no such model for {KEY}"}, "refused", "200 from .*/v1/embeddings, .* model for .API key"),
    ],
)
def test_an_answer_without_values_is_told_without_the_key(
    answer: Any, fault: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, _ = endpoint_that_answers(lambda _: answer, monkeypatch)
    (way,) = ways("openai", "embedding")
    with endpoint, pytest.raises(AnswerError, match=said) as caught:
        endpoint.ask(way, [Input(Text("a", "", is_query=False), [])])
    assert caught.value.fault == fault
    assert str(caught.value) == caught.value.detail
    assert KEY not in caught.value.detail
