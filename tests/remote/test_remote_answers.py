"""Answers that cannot be right are not believed, and right ones go to their texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from qwen3_rag import NonFiniteOutputError
from qwen3_rag.backends.remote import (
    RemoteAnswerError,
    RemoteNonFiniteError,
)
from server import Answer, Reply, Request, Server
from workload import RIGHT, TEXTS, check

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("short_pauses")


def _item(change: Callable[[dict[str, Any]], None]) -> Callable[[Any], Any]:
    def changed(answer: Any) -> Any:
        change(answer["data"][min(3, len(answer["data"]) - 1)])
        return answer

    return changed


def _swap_indices(answer: Any) -> Any:
    answer["data"][0]["index"] = answer["data"][1]["index"]
    return answer


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "one too few": (lambda a: {"data": a["data"][1:]}, "59 values came back for 60 inputs"),
    "one too many": (lambda a: {"data": [*a["data"], a["data"][0]]}, "61 values came back for 60"),
    "none": (lambda _: {"data": []}, "0 values came back"),
    "an index twice": (_swap_indices, "each once"),
    "no base64": (_item(lambda item: item.update(embedding="???")), "not valid base64"),
    "half a number": (_item(lambda item: item.update(embedding="AAA=")), "2 bytes"),
    "another length": (_item(lambda item: item.update(embedding=[0.5] * 32)), "length 32, .* has 64"),
    "words": (_item(lambda item: item.update(embedding=["0.5"] * 64)), "flat list of numbers"),
    "nested": (_item(lambda item: item.update(embedding=[[0.5]] * 64)), "flat list of numbers"),
    "zeros": (_item(lambda item: item.update(embedding=[0] * 64)), "input 3 is all zeros"),
    "no vector": (_item(lambda item: item.pop("embedding")), "has no 'embedding'"),
}


@pytest.mark.parametrize("fault", list(WRONG))
def test_answers_that_cannot_be_right_are_not_believed(fault: str, serve: Serve, embedder: Make) -> None:
    change, words = WRONG[fault]
    server = serve(models.altered(RIGHT, change))
    with pytest.raises(RemoteAnswerError, match=words) as caught:
        embedder(server.url).embed_documents(TEXTS)
    assert server.url in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None, 1e300])
def test_a_number_that_is_not_finite_names_its_text(number: Any, serve: Serve, embedder: Make) -> None:
    def change(answer: Any) -> Any:
        if len(answer["data"]) > 3:
            answer["data"][3]["embedding"] = [0.5] * 63 + [number]
        return answer

    server = serve(models.altered(RIGHT, change))
    with pytest.raises(NonFiniteOutputError, match=r"request is NaN.*text 3: it begins 't3 ") as caught:
        embedder(server.url).embed_documents(TEXTS[:7])
    assert caught.value.position == 3
    assert isinstance(caught.value, RemoteNonFiniteError)
    assert server.url in str(caught.value)


def test_values_in_any_order_go_to_their_texts(serve: Serve, embedder: Make, expected: np.ndarray) -> None:
    server = serve(models.altered(RIGHT, lambda answer: {"data": answer["data"][::-1]}))
    check(embedder(server.url, max_inputs_per_request=7), expected)


def _usage(**usage: Any) -> Callable[[Any], Any]:
    return lambda answer: {**answer, "usage": usage or None}


@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_an_answer_that_tells_of_fewer_tokens_than_were_sent_is_not_believed(
    kind: str, serve: Serve, embedder: Make, reranker: Make
) -> None:
    """The server cuts each input to 8 tokens and says so in its usage only."""
    compute = models.digest() if kind == "embedding" else models.log_odds_digest

    def cutting(request: Request) -> Reply:
        cut = {**request.body, "input": [ids[-8:] for ids in request.body["input"]]}
        return models.vllm(compute)(Request(request.path, request.headers, cut))

    server = serve(cutting)
    seen = r"was sent \d+ tokens and computed 16 .*cuts inputs.*maximum length.*verify --max-tokens"
    if kind == "embedding":
        call = partial(embedder(server.url).embed_documents, ["a long text " * 9, "another one " * 9])
    else:
        call = partial(reranker(server.url).score, "query", ["a long text", "another one"])
    with pytest.raises(RemoteAnswerError, match=seen) as caught:
        call()
    assert server.url in str(caught.value)


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": 0}, {}, {"prompt_tokens": None}, {"prompt_tokens": "5"}],
)
def test_a_usage_that_counts_nothing_proves_nothing(
    usage: dict[str, Any], serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    check(embedder(serve(models.altered(RIGHT, _usage(**usage))).url), expected)


def test_a_gateway_that_makes_text_of_token_ids_is_not_believed(serve: Serve, embedder: Make) -> None:
    """LiteLLM decodes them by another model's tokenizer if it believes that the server takes text only."""

    def gateway(request: Request) -> Reply:
        other_ids = [[token for ids in row for token in (ids, 11)] for row in request.body["input"]]
        return RIGHT(replace(request, body={**request.body, "input": other_ids}))

    with pytest.raises(
        RemoteAnswerError, match=r"was sent \d+ tokens and computed .*gateway.*server=\"openai\""
    ):
        embedder(serve(gateway).url).embed_documents(["a text", "another one"])


def test_usage_of_a_server_that_gets_text_is_no_evidence(
    serve: Serve, embedder: Make, embedding_folder: Path, expected: np.ndarray
) -> None:
    """Gateways count it by other tokenizers, or estimate it."""
    answer = models.openai(models.digest(), models.tokenizer_of(embedding_folder))
    server = serve(models.altered(answer, _usage(prompt_tokens=7)))
    check(embedder(server.url, "openai"), expected)


def test_a_probability_out_of_range_is_not_believed(
    serve: Serve, reranker: Make, reranking_folder: Path
) -> None:
    tokenizer = models.tokenizer_of(reranking_folder)
    server = serve(models.relevance(models.log_odds_digest, tokenizer, path="/v1/rerank", log_odds=True))
    with pytest.raises(RemoteAnswerError, match=r'is no probability.*scores="log_odds"'):
        reranker(server.url, "jina", template="client").score("q", [f"document {i}" for i in range(20)])


def test_a_model_with_two_classes_is_not_a_qwen3_reranker(serve: Serve, reranker: Make) -> None:
    two = json.dumps({"data": [{"index": 0, "probs": [0.1, 0.9]}]}).encode()
    with pytest.raises(RemoteAnswerError, match="2 classes where a Qwen3 reranker has one"):
        reranker(serve(lambda _: Reply(two)).url).score("q", ["d"])
