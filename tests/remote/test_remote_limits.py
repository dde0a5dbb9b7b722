"""Servers that limit how much they are asked at once, and those that are not ready yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from qwen3_rag.backends.remote import RemoteUnavailableError, client
from qwen3_rag.backends.remote.limiter import AdaptiveLimiter
from server import Answer, Reply, Request, Server, first
from workload import RIGHT, TEXTS, check

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]


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


@pytest.mark.usefixtures("short_pauses")
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


@pytest.mark.usefixtures("short_pauses")
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


@pytest.mark.usefixtures("short_pauses")
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
