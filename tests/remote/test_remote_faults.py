"""Servers fail in every way they can. Each call ends in the right result or in one clear error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import models
import numpy as np
import pytest
from qwen3_rag import ConfigurationError, Embedder, NonFiniteOutputError
from qwen3_rag.backends.remote import (
    RemoteAnswerError,
    RemoteError,
    RemoteNonFiniteError,
    RemoteOptions,
    RemoteRefusalError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    backend,
    client,
    failover,
)
from qwen3_rag.backends.remote.limiter import AdaptiveLimiter
from qwen3_rag.backends.remote.servers import Setup, dialect_of
from qwen3_rag.prompts import EmbeddingWords
from qwen3_rag.tokens import Prompt
from server import Answer, Reply, Request, Server, dead_url, fail, first, serving
from workload import RIGHT, TEXTS, check

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("short_pauses")

DEADLINE = 20.0
"""Seconds; longer than any test here needs unless it hangs."""


FAULTS: dict[str, list[Reply]] = {
    "reset in mid-body": [Reply({"data": "x" * 1000}, reset_after=500)],
    "reset before the body": [Reply({"data": []}, reset_after=0)],
    "429 with Retry-After": [Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.2"})],
    "429 with a date": [
        Reply({}, 429, {"Retry-After": format_datetime(datetime.now(timezone.utc), usegmt=True)})
    ],
    "429 with nonsense": [Reply({}, 429, {"Retry-After": "soon"})],
    "500 twice": [Reply({"error": "oops"}, 500)] * 2,
    "503 with an HTML page": [Reply(b"<html>busy</html>", 503)],
    "a slow answer": [Reply({"data": []}, delay=5.0)],
    "an answer that drips": [Reply({"data": "x" * 1000}, drip=0.1)],
    "five different ones": [
        Reply({}, 502),
        Reply({"data": "x" * 99}, reset_after=9),
        Reply({}, 429, {"Retry-After": "0"}),
        Reply({}, delay=5.0),
        Reply({}, 504),
    ],
}


DIVIDED = ("a slow answer", "an answer that drips", "five different ones")
"""After a timeout a request is sent again in parts."""


@pytest.mark.parametrize("requests", [1, 12])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_passing_faults_are_waited_out(
    fault: str, requests: int, serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    server = serve(first(FAULTS[fault], RIGHT))
    limit = -(-len(TEXTS) // requests)
    check(embedder(server.url, timeout=0.5, deadline=DEADLINE, max_inputs_per_request=limit), expected)
    least = requests + len(FAULTS[fault])
    assert len(server.requests) > least if fault in DIVIDED else len(server.requests) == least


def test_retry_after_is_honoured_and_a_random_pause_added(
    serve: Serve, embedder: Make, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "pause", lambda _, chance: 0.4 + 0 * chance)
    times: list[float] = []

    def answer(request: Request) -> Reply:
        times.append(time.monotonic())
        return RIGHT(request) if len(times) > 1 else Reply({}, 429, {"Retry-After": "0.7"})

    check(embedder(serve(answer).url), expected)
    assert times[1] - times[0] >= 1.1


def test_one_wrong_retry_after_does_not_shut_a_lone_server_for_a_day(
    serve: Serve, embedder: Make, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "_LONGEST_BACKOFF", 0.3)
    made = embedder(
        serve(first([Reply({}, 429, {"Retry-After": "86400"})], RIGHT)).url, timeout=10.0, deadline=DEADLINE
    )
    with pytest.raises(RemoteTimeoutError, match=r"next try would be 8.64e\+04 s from now"):
        made.embed_documents(TEXTS)
    check(made, expected)


def test_a_pause_longer_than_the_deadline_is_not_waited_for(serve: Serve, embedder: Make) -> None:
    when = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)
    server = serve(lambda _: Reply({"message": "quota"}, 429, {"Retry-After": when}))
    with pytest.raises(RemoteTimeoutError, match=r"status 429: quota; .* after the deadline of 20 s") as caught:
        embedder(server.url, timeout=10.0, deadline=DEADLINE).embed_documents(TEXTS)
    assert caught.value.url == f"{server.url}/v1/embeddings"
    assert len(server.requests) == 1


NEVER: dict[str, tuple[Reply, type[RemoteError], str]] = {
    "500": (Reply({"error": {"message": "out of memory"}}, 500), RemoteUnavailableError, "500: out of memory"),
    "reset": (Reply({"data": []}, reset_after=3), RemoteUnavailableError, "gave up after 3 tries"),
    "401": (Reply({"error": "Unauthorized"}, 401), RemoteRefusalError, "401: Unauthorized .*api_key_env"),
    "404": (Reply({"detail": "Not Found"}, 404), RemoteRefusalError, "404: Not Found .*served_model"),
    "redirect": (
        Reply({}, 307, {"Location": "https://me:pw@example.org/login?token=x"}),
        RemoteRefusalError,
        r"status 307: to https://example\.org/login: .*redirects are not followed",
    ),
    "an error with 200": (
        Reply({"error": {"message": "model not found"}}),
        RemoteAnswerError,
        "status 200, but an error within: model not found",
    ),
    "an error code with 200": (
        Reply({"code": "Throttling", "message": "too many"}),
        RemoteAnswerError,
        "an error within: too many",
    ),
    "a detail with 200": (Reply({"detail": "no model yet"}), RemoteAnswerError, "error within: no model yet"),
    "501": (Reply({}, 501), RemoteRefusalError, "status 501"),
    "malformed JSON": (Reply(b'{"data": [{"emb'), RemoteAnswerError, "not JSON: 15 bytes"),
    "an HTML page": (Reply(b"<!doctype html><title>Welcome"), RemoteAnswerError, "<!doctype html>"),
    "no data": (Reply({"object": "list"}), RemoteAnswerError, "has no 'data'"),
    "broken compression": (
        Reply(b"not gzip at all", headers={"Content-Encoding": "gzip"}),
        RemoteAnswerError,
        "compression",
    ),
}


@pytest.mark.parametrize("fault", list(NEVER))
def test_lasting_faults_are_one_error_that_says_what_was_seen(fault: str, serve: Serve, embedder: Make) -> None:
    reply, kind, words = NEVER[fault]
    server = serve(lambda _: reply)
    made = embedder(server.url, timeout=0.2, deadline=DEADLINE, max_retries=2)
    with pytest.raises(kind, match=words) as caught:
        made.embed_documents(TEXTS)
    assert f"{server.url}/v1/embeddings" in str(caught.value)
    tries = 3 if kind is RemoteUnavailableError else 1
    letters = 1 if fault == "500" else 0
    assert len(server.requests) == tries + letters, "only 429, 5xx, broken connections, timeouts: tried again"
    server.answer = RIGHT
    assert made.embed_documents(["works again"]).shape == (1, 64)


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


def test_a_dead_base_url_is_left_for_a_live_one(serve: Serve, embedder: Make, expected: np.ndarray) -> None:
    server = serve(RIGHT)
    with dead_url() as dead:
        made = embedder(
            [dead, server.url], max_inputs_per_request=5, timeout=10.0, deadline=DEADLINE, max_retries=0
        )
        check(made, expected)
        check(made, expected)
    assert sum(len(request.body["input"]) for request in server.requests) == 2 * len(TEXTS)


SELF_SIGNED = Path(__file__).with_name("self_signed.pem")
"""For 127.0.0.1, of no worth to anybody: made for these tests by `openssl req -x509`."""


def test_a_certificate_that_is_not_trusted_is_not_tried_again(embedder: Make) -> None:
    with serving(RIGHT, SELF_SIGNED) as untrusted:
        made = embedder(untrusted.url, timeout=10.0, deadline=DEADLINE)
        with pytest.raises(RemoteUnavailableError, match=r"self.signed.* after 1 try .*SSL_CERT_FILE"):
            made.embed_documents(TEXTS)


def test_a_certificate_that_is_trusted_by_its_file_is_accepted(
    embedder: Make, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(SELF_SIGNED))
    with serving(RIGHT, SELF_SIGNED) as trusted:
        made = embedder(trusted.url)
        check(made, expected)
        made.close()


def test_another_base_url_works_for_one_whose_certificate_is_not_trusted(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    with serving(RIGHT, SELF_SIGNED) as untrusted:
        check(embedder([untrusted.url, serve(RIGHT).url], max_inputs_per_request=9), expected)


def test_all_dead_is_one_error(embedder: Make) -> None:
    with dead_url() as one, dead_url() as two:
        with pytest.raises(RemoteUnavailableError, match=r"refused|failed") as caught:
            embedder([one, two], max_retries=1, timeout=10.0, deadline=DEADLINE).embed_documents(TEXTS)
        assert caught.value.url in (f"{one}/v1/embeddings", f"{two}/v1/embeddings")


def test_a_base_url_that_recovers_is_used_again(
    serve: Serve, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "_FIRST_BACKOFF", 1.0)
    sick, well = serve(lambda _: Reply({}, 503)), serve(RIGHT)
    made = embedder([sick.url, well.url], max_inputs_per_request=1, max_connections=4)
    made.embed_documents(TEXTS)
    while_resting = len(sick.requests)
    assert while_resting <= 4, "a base URL that fails must be left alone for a while"
    sick.answer = RIGHT
    time.sleep(1.1)
    made.embed_documents(TEXTS)
    assert len(sick.requests) - while_resting > 10


def test_requests_are_spread_over_base_urls(serve: Serve, embedder: Make, expected: np.ndarray) -> None:
    servers = [serve(RIGHT) for _ in range(3)]
    check(embedder([s.url for s in servers], max_inputs_per_request=2), expected)
    assert min(len(server.requests) for server in servers) >= 5


@pytest.mark.parametrize("chaos", range(3))
def test_no_text_is_dropped_repeated_or_reordered(
    chaos: int, serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    random = np.random.default_rng(chaos)
    lock = threading.Lock()

    def answer(request: Request) -> Reply:
        with lock:
            luck = random.random()
        if luck < 0.1:
            return Reply({}, 500)
        if luck < 0.2:
            return Reply({"data": "x" * 100}, reset_after=50)
        if luck < 0.3:
            return Reply({}, 429, {"Retry-After": "0.05"})
        right = RIGHT(request)
        return Reply(right.body, delay=0.05 * luck)

    urls = [serve(answer).url for _ in range(2)]
    made = embedder(urls, max_inputs_per_request=3, max_retries=60, timeout=10.0, deadline=DEADLINE)
    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(check, made, expected) for _ in range(4)]:
            future.result(60)


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


@pytest.mark.parametrize("fault", ["slow", "silent"])
def test_every_call_ends_within_its_deadline(fault: str, serve: Serve, embedder: Make) -> None:
    server = serve(lambda _: Reply({}, delay=30.0) if fault == "silent" else Reply({}, 500))
    made = embedder(server.url, timeout=0.3, deadline=1.0, max_retries=10_000, max_inputs_per_request=4)
    started = time.monotonic()
    with pytest.raises(RemoteTimeoutError, match="the deadline of 1 s"):
        made.embed_documents(TEXTS)
    assert time.monotonic() - started < 10


def test_waiting_for_a_connection_ends_at_the_deadline(serve: Serve, embedder: Make) -> None:
    server = serve(lambda _: Reply({}, delay=30.0))
    made = embedder(server.url, timeout=0.45, deadline=0.5, max_inputs_per_request=4, max_connections=1)
    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(made.embed_documents, TEXTS) for _ in range(2)]:
            with pytest.raises(RemoteTimeoutError):
                future.result(30)


@pytest.mark.parametrize("is_sent_again", [True, False])
def test_what_kept_a_request_waiting_is_told_when_its_time_is_over(
    is_sent_again: bool, serve: Serve, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was refused waits for the turn of another, and then has little time left, or none."""

    async def whole_pause(_: AdaptiveLimiter, __: float, *, at_most: float) -> None:
        await asyncio.sleep(at_most)

    if not is_sent_again:
        monkeypatch.setattr(AdaptiveLimiter, "release_for", whole_pause)
    server = serve(RIGHT)
    made = embedder(server.url, timeout=1.0, deadline=1.2, max_inputs_per_request=1)
    made.embed_documents(TEXTS[:4])  # so that two may be under way
    before = len(server.requests)
    refused = iter([Reply({"message": "busy"}, 429)])
    server.answer = lambda request: (
        Reply({}, delay=30.0) if len(request.body["input"][0]) > 20 else next(refused, Reply({}, delay=30.0))
    )
    with ThreadPoolExecutor(1) as threads:
        silent = threads.submit(made.embed_queries, ["q"])
        while len(server.requests) == before:
            time.sleep(0.01)
        time.sleep(0.2)
        with pytest.raises(RemoteTimeoutError, match=r"status 429: busy; .* the deadline of 1\.2 s") as caught:
            made.embed_documents(["d"])
        with pytest.raises(RemoteTimeoutError):
            silent.result(30)
    assert ("try 2: no whole answer" in str(caught.value)) == is_sent_again
    assert [len(r.body["input"][0]) for r in server.requests[before:]].count(2) == 1 + is_sent_again


def test_concurrent_calls_to_a_silent_server_end_within_about_one_deadline(
    serve: Serve, embedder: Make
) -> None:
    """Nobody would fare better alone, so a batch that failed is not tried again call by call."""
    server = serve(lambda _: Reply({}, delay=30.0))
    made = embedder(server.url, timeout=0.4, deadline=1.5, max_retries=10_000).load()

    async def calls() -> list[Any]:
        return await asyncio.gather(*(made.aembed_documents([text]) for text in TEXTS), return_exceptions=True)

    started = time.monotonic()
    results = asyncio.run(calls())
    assert time.monotonic() - started < 3 * 1.5
    assert {type(result) for result in results} == {RemoteTimeoutError}


def test_a_cancellation_that_is_lost_does_not_go_on_asking() -> None:
    """`asyncio.wait_for` of Python 3.10 and 3.11 can lose one. A client stands in that loses each."""

    class Deaf:
        def __init__(self) -> None:
            self.calls = 0

        async def send(self, *_: Any, **__: Any) -> Any:
            self.calls += 1
            if self.calls == 1:
                await asyncio.sleep(0.1)
                raise RemoteUnavailableError("gone")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.3)
            return np.ones((1, 64), np.float32)

        async def close(self) -> None:
            pass

    options = RemoteOptions(server="vllm", base_url=("http://localhost",))
    deaf = Deaf()
    made = backend.RemoteBackend(
        dialect_of(Setup(options, "m", 64, len), "embedding"),
        lambda: cast("client.Client", deaf),
        max_inputs=1,
        max_tokens=100,
        connections=2,
        token_budget=None,
    )
    words = EmbeddingWords("", "t", is_query=False)
    try:
        with pytest.raises(RemoteUnavailableError):
            made.run([Prompt(np.array([1], np.int32), words, index) for index in range(50)])
    finally:
        made.close()
    assert deaf.calls == 2


def test_an_error_ends_the_requests_beside_it(serve: Serve, embedder: Make) -> None:
    def answer(request: Request) -> Reply:
        is_first = len(server.requests) == 1
        return Reply({}, 404) if is_first else Reply(RIGHT(request).body, delay=0.5)

    server = serve(answer)
    made = embedder(server.url, max_inputs_per_request=5, max_connections=2)
    with pytest.raises(RemoteRefusalError):
        made.embed_documents(TEXTS)
    assert len(server.requests) <= 3, "a call that has failed went on asking"
    server.answer = RIGHT
    assert made.embed_documents(TEXTS).shape == (60, 64)


def test_nothing_is_sent_for_no_texts(serve: Serve, embedder: Make) -> None:
    server = serve(lambda _: fail("nothing to ask for"))
    assert embedder(server.url).embed_documents([]).shape == (0, 64)


def test_closing_ends_connections_and_thread(serve: Serve, embedder: Make) -> None:
    server = serve(RIGHT)
    made = embedder(server.url)
    made.embed_documents(TEXTS)
    remote = made.backend
    assert isinstance(remote, backend.RemoteBackend)
    assert "qwen3-rag-remote" in {thread.name for thread in threading.enumerate()}
    made.close()
    assert "qwen3-rag-remote" not in {thread.name for thread in threading.enumerate()}
    assert remote._client._http.is_closed


def test_garbage_that_is_collected_in_the_event_loops_thread_ends_that_thread(
    serve: Serve, embedding_folder: Path
) -> None:
    """A finaliser there must wait for nothing: the engine's thread closes the connections in this very loop."""
    kwargs = {"server": "vllm", "base_url": serve(RIGHT).url}
    garbage = [Embedder(str(embedding_folder), backend="remote", model_kwargs=kwargs)]
    garbage[0].embed_documents(["text"])
    remote = garbage[0].backend
    assert isinstance(remote, backend.RemoteBackend)
    loop = remote._loop._loop
    del remote
    loop.call_soon_threadsafe(garbage.clear)
    deadline = time.monotonic() + 10
    while not loop.is_closed() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert loop.is_closed()


def test_a_call_with_an_instruction_that_cannot_be_sent_fails_alone(
    serve: Serve, reranker: Make, reranking_folder: Path
) -> None:
    tokenizer = models.tokenizer_of(reranking_folder)
    made = reranker(serve(models.tei(models.log_odds_digest, tokenizer)).url, "tei", template="server").load()

    async def calls() -> list[Any]:
        tasks = [None, "Find recipes", None, None]
        calls = [made.ascore(f"q{i}", ["d"], instruction=task) for i, task in enumerate(tasks)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(calls())
    assert [isinstance(result, ConfigurationError) for result in results] == [False, True, False, False]
    assert "always uses the default instruction" in str(results[1])


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
