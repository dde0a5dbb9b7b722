"""Several base URLs: dead, untrusted and recovering ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3_rag.backends.remote import (
    RemoteUnavailableError,
    failover,
)
from server import Answer, Reply, Server, dead_url, serving
from workload import DEADLINE, RIGHT, TEXTS, check

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("short_pauses")


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
    monkeypatch.setattr(failover, "_LONGEST_BACKOFF", 1.0)
    sick, well = serve(lambda _: Reply({}, 503)), serve(RIGHT)
    made = embedder([sick.url, well.url], max_inputs_per_request=1, max_connections=4)
    started = time.monotonic()
    made.embed_documents(TEXTS)
    seconds = time.monotonic() - started
    while_resting = len(sick.requests)
    # At most one for each connection at first, then one a second.
    assert while_resting <= 4 + seconds, "a base URL that fails must be left alone for a while"
    sick.answer = RIGHT
    time.sleep(1.1)
    made.embed_documents(TEXTS)
    assert len(sick.requests) - while_resting > 10


def test_requests_are_spread_over_base_urls(serve: Serve, embedder: Make, expected: np.ndarray) -> None:
    servers = [serve(RIGHT) for _ in range(3)]
    check(embedder([s.url for s in servers], max_inputs_per_request=2), expected)
    assert min(len(server.requests) for server in servers) >= 5
