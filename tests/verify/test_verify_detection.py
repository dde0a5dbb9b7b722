"""What a server speaks and what its models are called, from whatever it answers to such questions."""

from __future__ import annotations

from typing import Any

import pytest
from qwen3_rag.models import ModelKind
from qwen3_rag.verification.endpoint import Endpoint


def endpoint_of(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, url: str = "http://h") -> Endpoint:
    """A server that answers questions at some URLs; None stands for an error, or for no JSON."""

    class Connection:
        def get(self, url: str) -> Any:
            return answers.get(url)

    monkeypatch.setattr("qwen3_rag.verification.endpoint.Connection", lambda *_, **__: Connection())
    return Endpoint(url, key=None, timeout=1)


@pytest.mark.parametrize("url", ["http://h", "http://h/v1", "http://h/v1/"])
@pytest.mark.parametrize(
    ("path", "answer", "server"),
    [
        ("/version", {"version": "0.32.0"}, "vllm"),
        ("/info", {"model_type": {"reranker": {}}}, "tei"),
        ("/v1/models", {"data": [{"id": "m", "owned_by": "llamacpp"}]}, "jina"),
    ],
)
def test_a_server_is_known_by_what_it_answers_below_its_host(
    path: str, answer: Any, server: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoint_of({"http://h" + path: answer}, monkeypatch, url).detect("reranking") == server


@pytest.mark.parametrize(("kind", "server"), [("embedding", "openai"), ("reranking", "cohere")])
@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        ["version", "model_type"],
        "version",
        {},
        {"name": "a front page"},
        {"data": "none"},
        {"version": "v3.8.0 (LocalAI's)"},
        {"version": ""},
        {"version": None},
    ],
)
def test_a_server_that_answers_something_else_is_taken_for_none_of_these(
    answer: Any, kind: ModelKind, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {f"http://h{path}": answer for path in ("/version", "/info", "/v1/models")}
    assert endpoint_of(answers, monkeypatch).detect(kind) == server


def test_a_server_of_many_owners_is_llama_cpp_if_one_model_is_its(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [{"id": "a", "owned_by": "somebody"}, {"id": "b", "owned_by": "llamacpp"}]
    assert endpoint_of({"http://h/v1/models": {"data": models}}, monkeypatch).detect("reranking") == "jina"


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ({"data": [{"id": "theirs"}]}, "theirs"),
        ({"data": [{"id": 7}]}, "7"),
        ({"data": [{"name": "no id"}, "no object", None, {"id": "theirs"}]}, "theirs"),
        ({"data": {"id": "theirs"}}, "ours"),
        ({"data": None}, "ours"),
        ({"models": [{"id": "theirs"}]}, "ours"),
        ([{"id": "theirs"}], "ours"),
        (None, "ours"),
    ],
)
@pytest.mark.parametrize("url", ["http://h", "http://h/v1"])
def test_models_are_those_listed_as_openai_lists_them(
    answer: Any, name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoint_of({"http://h/v1/models": answer}, monkeypatch, url).model_name("ours") == name
