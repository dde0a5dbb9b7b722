"""Verification's connections: which failures mean that nobody is there, what errors tell, and the end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from faulty_model import Served
from qwen3_rag.backends.remote.keys import ApiKey
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification.connection import AnswerError, Connection
from qwen3_rag.verification.endpoint import Endpoint
from verify_run import DEAD

KEY = "k-5f1d-" + "not-a-real-one"


def answer_with(outcome: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every request raise an exception or return a response; return the methods of those that come."""
    methods: list[str] = []

    async def request(_: httpx.AsyncClient, method: str, *__: object, **___: object) -> httpx.Response:
        methods.append(method)
        if isinstance(outcome, Exception):
            raise outcome
        response: httpx.Response = outcome
        return response

    monkeypatch.setattr(httpx.AsyncClient, "request", request)
    return methods


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ProxyError, httpx.ConnectTimeout])
def test_where_no_connection_is_accepted_nobody_is_there(
    error: type[httpx.HTTPError], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(error("no"), monkeypatch)
    connection = Connection(None, timeout=5)
    with pytest.raises(OSError, match=f"{DEAD} cannot be reached: no"):
        connection.check_reachable(DEAD)
    connection.close()


@pytest.mark.parametrize(
    "outcome",
    [httpx.RemoteProtocolError("it hung up"), httpx.ReadError("it hung up"), httpx.Response(404)],
    ids=["hangs up", "breaks off", "refuses"],
)
def test_whoever_accepts_a_connection_is_there_whatever_it_answers(
    outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = answer_with(outcome, monkeypatch)
    connection = Connection(None, timeout=5)
    connection.check_reachable(DEAD)
    connection.close()
    assert methods == ["HEAD"]


def test_whoever_answers_nothing_in_time_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(asyncio.TimeoutError(), monkeypatch)
    connection = Connection(None, timeout=5)
    with pytest.raises(OSError, match="cannot be reached: no whole answer within 5 s"):
        connection.check_reachable(DEAD)
    connection.close()


def test_a_short_timeout_is_that_of_connecting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(httpx.ConnectTimeout(""), monkeypatch)
    connection = Connection(None, timeout=3)
    with pytest.raises(OSError, match="no connection within 3 s"):
        connection.check_reachable(DEAD)
    connection.close()


def test_a_transport_error_that_quotes_the_key_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(httpx.LocalProtocolError(f"illegal header value b'Bearer {KEY}'"), monkeypatch)
    connection = Connection(ApiKey(KEY, source="test"), timeout=5)
    with pytest.raises(OSError, match=r"Bearer \[API key\].*LocalProtocolError") as caught:
        connection.post(DEAD, {})
    connection.close()
    assert KEY not in str(caught.value)


def test_a_busy_server_that_quotes_the_key_is_told_of_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(httpx.Response(429, text=f"too many requests\nof {KEY}"), monkeypatch)
    connection = Connection(ApiKey(KEY, source="test"), timeout=60, sleep=lambda _: None)
    with pytest.raises(OSError, match=r"too many requests of \[API key\]") as caught:
        connection.post(DEAD, {})
    connection.close()
    assert KEY not in str(caught.value)


def test_a_redirect_is_told_without_what_may_be_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key too, should the server repeat it in the path."""
    moved = httpx.Response(307, request=httpx.Request("POST", DEAD))
    moved.next_request = httpx.Request("POST", f"https://alice:hunter2@other/{KEY}/v1?token=secret#secret")
    answer_with(moved, monkeypatch)
    connection = Connection(ApiKey(KEY, source="test"), timeout=5)
    with pytest.raises(ConfigurationError, match=r"\(HTTP 307\) to https://other/.*API.*/v1;") as caught:
        connection.post(DEAD, {})
    connection.close()
    assert not any(secret in str(caught.value) for secret in ("alice", "hunter2", "secret", KEY))


@pytest.mark.parametrize("content", ["<html>a front page</html>", "", "null"])
def test_an_answer_that_is_no_json_is_told_as_such(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(httpx.Response(200, text=content), monkeypatch)
    connection = Connection(None, timeout=5)
    with pytest.raises(AnswerError, match=f"{DEAD} answered something that is no JSON") as caught:
        connection.post(DEAD, {})
    connection.close()
    assert caught.value.fault == "malformed"


def test_an_error_that_is_json_answers_no_question(url: str) -> None:
    """Its members could be those that a kind of server is known by."""
    connection = Connection(None, timeout=5)
    assert connection.get(url + "/version") == {"version": "0.32.0"}
    assert connection.get(url + "/nowhere") is None
    connection.close()


def test_a_busy_server_is_asked_three_times_what_it_is_and_the_way_round_is_told(
    url: str, embedder: Served
) -> None:
    pauses: list[float] = []
    embedder.broken = {"/version": 503}
    connection = Connection(None, timeout=60, sleep=pauses.append)
    with pytest.raises(OSError, match="with --server and --served-model it is not asked"):
        connection.get(url + "/version")
    assert pauses == [0.01, 0.01]
    embedder.failures = [503] * 5
    with pytest.raises(OSError, match="could not be asked") as caught:
        connection.post(url + "/v1/embeddings", {})
    connection.close()
    assert "--server" not in str(caught.value), "vectors are asked for whatever options are given"


def test_closing_ends_the_connections_and_their_thread(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[httpx.AsyncClient] = []
    close = httpx.AsyncClient.aclose

    async def aclose(client: httpx.AsyncClient) -> None:
        closed.append(client)
        await close(client)

    monkeypatch.setattr(httpx.AsyncClient, "aclose", aclose)
    before = set(threading.enumerate())
    endpoint = Endpoint(url, key=None, timeout=5)
    endpoint.check_reachable()
    (thread,) = {one for one in threading.enumerate() if one.name == "qwen3-rag-verify"} - before
    endpoint.close()
    assert not thread.is_alive()
    assert [client.is_closed for client in closed] == [True]
