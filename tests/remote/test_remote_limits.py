"""How many requests a server gets at once and how large they are: slow, limited and loading servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from qwen3_rag.backends.remote import (
    RemoteRefusalError,
    RemoteUnavailableError,
    backend,
    client,
)
from qwen3_rag.backends.remote.limiter import AdaptiveLimiter
from server import Answer, Reply, Request, Server, first
from workload import DEADLINE, RIGHT, TEXTS, check

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("short_pauses")


class AtMost:
    """Answers so many requests at once, each in so many seconds, and refuses others at once."""

    def __init__(self, requests: int, seconds: float) -> None:
        self._places, self._seconds = threading.Semaphore(requests), seconds
        self.refusals = 0

    def __call__(self, request: Request) -> Reply:
        if not self._places.acquire(blocking=False):
            self.refusals += 1
            return Reply({"error": {"message": "too many requests"}}, 429)
        try:
            time.sleep(self._seconds)
            return RIGHT(request)
        finally:
            self._places.release()


@pytest.mark.parametrize("retries", [0, 2])
def test_a_server_that_answers_two_requests_at_once_does_a_bulk_job(
    retries: int, serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    answer = AtMost(2, 0.02)
    check(embedder(serve(answer).url, max_inputs_per_request=1, max_retries=retries), expected)
    assert 0 < answer.refusals < len(TEXTS) / 2, "the limiter keeps near the limit once it is known"


def test_refusals_count_for_nothing_while_the_server_works_on_a_request_that_it_got_before(
    serve: Serve, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that take longer than the pauses of one request together."""
    monkeypatch.setattr(client, "pause", lambda _, chance: 0.01 + 0 * chance)
    answer = AtMost(1, 0.15)
    made = embedder(serve(answer).url, max_inputs_per_request=1, max_retries=0)
    assert made.embed_documents(TEXTS[:4]).shape == (4, 64)
    assert answer.refusals > 0


def test_a_server_that_refuses_everything_is_given_up_after_so_many_tries(serve: Serve, embedder: Make) -> None:
    server = serve(lambda _: Reply({"error": {"message": "quota exceeded"}}, 429))
    made = embedder(server.url, max_retries=2)
    with pytest.raises(RemoteUnavailableError, match=r"429: quota exceeded; gave up after 3 tries"):
        made.embed_documents(TEXTS)
    assert len(server.requests) == 3


def test_one_request_that_is_always_refused_ends_while_others_are_answered(
    serve: Serve, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some services refuse by 429 a request that is larger than what they allow in a minute."""
    monkeypatch.setattr(client, "pause", lambda _, chance: 0.1 + 0 * chance)
    ends = threading.Event()

    def answer(request: Request) -> Reply:
        if len(request.body["input"][0]) > 300:
            return Reply({"error": {"message": "too large"}}, 429)
        time.sleep(0.01)
        return RIGHT(request)

    server = serve(answer)
    made = embedder(server.url, max_inputs_per_request=1, max_retries=1, timeout=0.4, deadline=0.5).load()

    def others() -> None:
        while not ends.is_set():
            with suppress(RemoteUnavailableError):
                made.embed_documents(TEXTS[:8])

    thread = threading.Thread(target=others)
    thread.start()
    try:
        while len(server.requests) < 20:  # so that the limiter has room for the one and for others
            time.sleep(0.01)
        with pytest.raises(RemoteUnavailableError, match="429: too large"):
            made.embed_documents(["long " * 100])
        tries = sum(len(request.body["input"][0]) > 300 for request in server.requests)
        assert tries > 2, "some count for nothing beside the two that max_retries allows"
    finally:
        ends.set()
        thread.join()


@pytest.mark.parametrize(
    "reply", [Reply({}, 503, {"Retry-After": "0.01"}), Reply({"message": "Model is still loading"}, 503)]
)
def test_a_model_that_is_still_loading_is_waited_for(
    reply: Reply, serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    server = serve(first([reply] * 6, RIGHT))
    check(embedder(server.url, max_retries=1, timeout=10.0, deadline=20.0), expected)
    assert len(server.requests) == 7


def test_a_refusal_lowers_the_limit_once_per_burst_and_it_grows_slowly_from_then_on() -> None:
    limiter = AdaptiveLimiter(hosts=8, connections=16, tokens=1000, timeout=60.0)
    limiter._in_flight = 8
    for _ in range(5):
        limiter.note_refusal(sent=1.0, now=2.0)
    assert limiter.request_limit == 6, "what was sent before the limit was lowered tells nothing new"
    limiter.note_refusal(sent=2.5, now=3.0)
    assert limiter.request_limit == 4
    for _ in range(31):
        limiter.note_answer(1.0, 100)
    assert limiter.request_limit == 4
    limiter.note_answer(1.0, 100)
    assert limiter.request_limit == 5
    limiter._in_flight = 1
    limiter.note_refusal(sent=4.0, now=4.0)
    assert limiter.request_limit == 1


def test_a_server_that_never_answers_is_asked_for_less_and_less_and_given_up(
    serve: Serve, embedder: Make
) -> None:
    server = serve(lambda _: Reply({}, delay=5.0))
    made = embedder(server.url, timeout=0.2, deadline=DEADLINE, max_retries=2)
    with pytest.raises(RemoteUnavailableError, match=r"within 0\.2 s; gave up .*raise timeout"):
        made.embed_documents(TEXTS)
    sizes = [len(request.body["input"]) for request in server.requests]
    assert sizes[-4:] == [3, 1, 1, 1]
    assert sizes == sorted(sizes, reverse=True)


def test_without_retries_a_request_that_times_out_is_not_divided_either(serve: Serve, embedder: Make) -> None:
    server = serve(lambda _: Reply({}, delay=5.0))
    with pytest.raises(RemoteUnavailableError, match="gave up after 1 try"):
        embedder(server.url, timeout=0.2, deadline=DEADLINE, max_retries=0).embed_documents(TEXTS)
    assert len(server.requests) == 1


def test_a_slow_server_gets_less_at_once_and_answers_everything(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    """It does one request after the other, also those that nobody waits for any more, and needs 3 s for all."""
    lock = threading.Lock()
    tokens_per_second = sum(len(text) + 1 for text in TEXTS) / 3.0

    def answer(request: Request) -> Reply:
        with lock:
            time.sleep(sum(map(len, request.body["input"])) / tokens_per_second)
        return RIGHT(request)

    check(embedder(serve(answer).url, timeout=0.6, deadline=3.2, max_inputs_per_request=30), expected)


def test_after_a_timeout_no_request_is_twice_as_large_as_any_that_was_answered(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    """Nor after queries, whose quick answers tell nothing of large requests."""
    most = 200

    def answer(request: Request) -> Reply:
        sizes.append(sum(map(len, request.body["input"])))
        return Reply({}, delay=5.0) if sizes[-1] > most else RIGHT(request)

    sizes: list[int] = []
    made = embedder(serve(answer).url, timeout=0.6, deadline=DEADLINE, max_connections=1)
    check(made, expected)
    sizes.clear()
    for _ in range(6):
        made.embed_queries(["q"])
    check(made, expected)
    assert max(sizes) <= 2 * most


def test_the_answer_about_one_prompt_tells_nothing_of_larger_requests(serve: Serve, reranker: Make) -> None:
    """vLLM's `/classify` is asked again about one prompt where log-odds and probabilities look the same."""
    right = models.vllm(models.log_odds_digest, knows_use_activation=False)

    def answer(request: Request) -> Reply:
        delay = 0.0 if request.body["use_activation"] else 1.2
        return Reply(right(request).body, delay=delay)

    server = serve(answer)
    made = reranker(server.url, timeout=4.0).load()
    remote = made.backend
    assert isinstance(remote, backend.RemoteBackend)
    remote._client._limiter.token_limit = 1000
    made.score("q", ["one", "two", "three"])
    assert [len(request.body["input"]) for request in server.requests] == [3, 1]
    assert remote._client._limiter.token_limit == 1000


def test_no_more_requests_than_connections_are_under_way(serve: Serve, embedder: Make) -> None:
    server = serve(lambda request: Reply(RIGHT(request).body, delay=0.02))
    made = embedder(server.url, max_inputs_per_request=2, max_connections=3)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: made.embed_documents(TEXTS), range(4)))
    assert 1 < server.most_at_once <= 3


def test_requests_keep_to_their_limits(serve: Serve, embedder: Make) -> None:
    server = serve(RIGHT)
    long = "a text longer than the limit of a request " * 10
    embedder(server.url, max_inputs_per_request=8, max_tokens_per_request=40).embed_documents([*TEXTS, long])
    sizes = [[len(ids) for ids in request.body["input"]] for request in server.requests]
    assert all(len(size) <= 8 for size in sizes)
    assert all(sum(size) <= 40 or len(size) == 1 for size in sizes)
    assert any(sum(size) > 40 for size in sizes)


def at_most(inputs: int = 10**6, tokens: int = 10**6) -> Answer:
    """A server's answer that refuses larger requests."""

    def answer(request: Request) -> Reply:
        size = [len(ids) for ids in request.body["input"]]
        if len(size) > inputs or sum(size) > tokens:
            return Reply({"error": f"at most {inputs} inputs and {tokens} tokens"}, status=422)
        return RIGHT(request)

    return answer


def sizes(server: Server, count: Callable[[list[list[int]]], int]) -> list[int]:
    """Return the sizes of the requests so far, and forget those."""
    found = [count(request.body["input"]) for request in server.requests]
    server.requests.clear()
    return found


def test_how_many_inputs_a_server_takes_is_learnt_once(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    server = serve(at_most(inputs=9))
    made = embedder(server.url, max_connections=1)
    check(made, expected)
    assert max(sizes(server, len)) == 60
    check(made, expected)
    assert sizes(server, len) == [8] * 7 + [4], "60, 30 and 15 were refused, 8 was not"


def test_a_limit_learnt_holds_for_what_a_run_has_not_sent_yet(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    server = serve(at_most(inputs=10))
    check(embedder(server.url, max_connections=1, max_inputs_per_request=20), expected)
    assert sizes(server, len) == [20, 1, 10, 10, 10, 10, 10, 10], "the one is a letter"


def test_how_many_tokens_a_server_takes_is_learnt_too(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    """A limit of inputs is assumed first, until as many were accepted."""
    server = serve(at_most(tokens=200))
    made = embedder(server.url, max_connections=1)
    for _ in range(3):
        check(made, expected)
    assert any(size > 200 for size in sizes(server, lambda rows: sum(map(len, rows))))
    check(made, expected)
    assert max(sizes(server, lambda rows: sum(map(len, rows)))) <= 200


def test_the_refusal_of_one_text_tells_nothing_of_sizes(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    server = serve(at_most(tokens=1000))
    made = embedder(server.url, max_connections=1)
    with pytest.raises(RemoteRefusalError, match="about text 41"):
        made.embed_documents([*TEXTS[:41], "much too long " * 100, *TEXTS[42:]])
    server.requests.clear()
    check(made, expected)
    assert sizes(server, len) == [60]


def test_a_refusal_of_what_was_accepted_before_lowers_no_limit(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    server = serve(RIGHT)
    made = embedder(server.url, max_connections=1)
    check(made, expected)
    server.answer = first([Reply({"error": "just now not"}, status=400)], RIGHT)
    check(made, expected)
    server.requests.clear()
    check(made, expected)
    assert sizes(server, len) == [60]


def test_a_rerank_request_holds_one_query(serve: Serve, reranker: Make, reranking_folder: Path) -> None:
    tokenizer = models.tokenizer_of(reranking_folder)
    server = serve(models.relevance(models.log_odds_digest, tokenizer, path="/v2/rerank"))
    pairs = [(f"query {i % 3}", f"document {i}") for i in range(20)]
    reranker(server.url, "cohere", template="client").score_pairs(pairs)
    assert len(server.requests) == 3
    sent = {
        (
            request.body["query"].rsplit("<Query>: ", 1)[1].split("\n")[0],
            document.split("<|im_end|>")[0].strip(),
        )
        for request in server.requests
        for document in request.body["documents"]
    }
    assert sent == set(pairs)
