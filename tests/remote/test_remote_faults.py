"""Servers fail for a while or for good. Each call ends in the right result or in one clear error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from qwen3_rag import ConfigurationError
from qwen3_rag.backends.remote import (
    RemoteAnswerError,
    RemoteError,
    RemoteRefusalError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    client,
    failover,
)
from qwen3_rag.backends.remote.limiter import AdaptiveLimiter
from server import Answer, Reply, Request, Server, fail, first
from workload import DEADLINE, RIGHT, TEXTS, check

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("short_pauses")


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
    patience = 1.0 if fault in DIVIDED else DEADLINE / 2
    check(embedder(server.url, timeout=patience, deadline=DEADLINE, max_inputs_per_request=limit), expected)
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
    made = embedder(server.url, timeout=5.0, deadline=DEADLINE, max_retries=2)
    with pytest.raises(kind, match=words) as caught:
        made.embed_documents(TEXTS)
    assert f"{server.url}/v1/embeddings" in str(caught.value)
    tries = 3 if kind is RemoteUnavailableError else 1
    letters = 1 if fault == "500" else 0
    assert len(server.requests) == tries + letters, "only 429, 5xx, broken connections, timeouts: tried again"
    server.answer = RIGHT
    assert made.embed_documents(["works again"]).shape == (1, 64)


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


def test_nothing_is_sent_for_no_texts(serve: Serve, embedder: Make) -> None:
    server = serve(lambda _: fail("nothing to ask for"))
    assert embedder(server.url).embed_documents([]).shape == (0, 64)


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
