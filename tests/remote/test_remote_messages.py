"""What errors say of servers' answers and of broken connections. Without sockets."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from qwen3_rag.backends.remote import (
    RemoteAnswerError,
    RemoteError,
    RemoteNonFiniteError,
    RemoteOptions,
    RemoteRefusalError,
    RemoteSetupError,
    RemoteUnavailableError,
)
from qwen3_rag.backends.remote.attempts import Answer, Failure
from qwen3_rag.backends.remote.error_text import cause, quoted, said_by
from qwen3_rag.backends.remote.outcomes import parse_answer, refusal, unavailable
from qwen3_rag.backends.remote.servers import Request
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, member, vectors

URL = "http://host/endpoint"


def _read(answer: Any) -> Any:
    return vectors(member(answer, "data"), 2)


REQUEST = Request({}, _read)


def parsed(content: Any) -> Any:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return parse_answer(Answer(raw), REQUEST, URL, None)


def test_a_right_answer_is_parsed() -> None:
    assert np.array_equal(parsed({"data": [[1.0, 2.0]]}), [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe<html>" + b"x" * 99, r"not JSON: 107 bytes that begin with '..<html>x{52}'$"),
        (b"[" * 100_000, "not JSON: 100000 bytes"),
        (b"null", "not JSON: 4 bytes"),
        ([{"error": "no"}], "the answer has no 'data': a list of 1"),
        ("words", "the answer has no 'data': a str"),
        ({"error": {"message": "no model"}}, "status 200, but an error within: no model$"),
        ({"detail": "no model"}, "an error within: no model$"),
        ({"code": "Throttling", "message": "too many"}, "an error within: too many$"),
        ({"message": "ok", "data": [[1.0]]}, "vectors have length 1"),
        ({"code": 0, "detail": "", "data": [[1.0]]}, "vectors have length 1"),
        ({"code": 1, "message": ""}, "the answer has no 'data'"),
    ],
)
def test_an_answer_that_cannot_be_right_is_told_by_what_was_seen(content: Any, words: str) -> None:
    with pytest.raises(RemoteAnswerError, match=f"^{URL}: .*{words}") as caught:
        parsed(content)
    assert (caught.value.url, caught.value.status, caught.value.position) == (URL, 200, None)
    assert caught.value.__cause__ is None


def test_a_number_that_is_not_finite_is_told_with_its_place_in_the_request() -> None:
    with pytest.raises(RemoteNonFiniteError, match=f"^{URL}: .*input 1 .*float16") as caught:
        parsed({"data": [[1.0, 2.0], [1.0, None]]})
    assert (caught.value.url, caught.value.status, caught.value.position) == (URL, 200, 1)
    assert not isinstance(caught.value.__cause__, NotFiniteError)


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (200, RemoteAnswerError, None),
        (300, RemoteSetupError, "redirects are not followed"),
        (307, RemoteSetupError, "redirects are not followed"),
        (399, RemoteSetupError, "redirects are not followed"),
        (299, RemoteSetupError, None),
        (400, RemoteRefusalError, None),
        (401, RemoteSetupError, "api_key_env"),
        (403, RemoteSetupError, "does not allow"),
        (404, RemoteSetupError, "served_model"),
        (422, RemoteRefusalError, None),
    ],
)
def test_a_refusal_says_what_usually_causes_it(
    status: int, kind: type[RemoteError], advice: str | None
) -> None:
    error = refusal(Failure("what was seen", status), URL)
    assert type(error) is kind
    assert (error.url, error.status) == (URL, status)
    if advice is None:
        assert str(error) == f"{URL}: what was seen"
    else:
        assert advice in str(error)


def test_what_could_not_be_reached_is_told_with_its_tries_and_what_helps() -> None:
    one = RemoteOptions("vllm", ("http://a",), max_retries=1)
    three = RemoteOptions("vllm", ("http://a", "http://b", "http://c"), max_retries=1)
    error = unavailable(Failure("broke", 502), URL, 1, one)
    assert type(error) is RemoteUnavailableError
    assert (error.url, error.status) == (URL, 502)
    assert str(error) == f"{URL}: broke; gave up after 1 try (max_retries=1)"
    told = str(unavailable(Failure("broke"), URL, 4, three))
    assert (
        told
        == f"{URL}: broke; gave up after 4 tries (max_retries=1), of which some went to the 2 other base URLs"
    )
    assert "raise timeout" in str(unavailable(Failure("slow", is_slow=True), URL, 2, one))
    assert "SSL_CERT_FILE" in str(unavailable(Failure("self-signed", is_untrusted=True), URL, 1, one))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"error": {"message": "OpenAI"}}', "OpenAI"),
        (b'{"error": "TEI", "error_type": "Validation"}', "TEI"),
        (b'{"object": "error", "message": "vLLM, once", "code": 400}', "vLLM, once"),
        (b'{"detail": "FastAPI"}', "FastAPI"),
        (b'{"detail": [{"msg": "Field required"}]}', '{"detail": [{"msg": "Field required"}]}'),
        (b'{"error": {"code": 7}}', '{"error": {"code": 7}}'),
        (b'{"error": {"message": ""}, "detail": "x"}', '{"error": {"message": ""}, "detail": "x"}'),
        (b" <html>\xff</html>\n", "<html>\ufffd</html>"),
        (b'{"message": " spaced "}', "spaced"),
        (b"  ", "no message"),
        (b"", "no message"),
    ],
)
def test_what_a_server_says_is_found_in_every_servers_form(content: bytes, said: str) -> None:
    assert said_by(httpx.Response(400, content=content)) == said


@pytest.mark.parametrize(
    ("status", "location", "said"),
    [
        (302, "https://me:pw@example.org/login?token=x#y", "to https://example.org/login: moved"),
        (302, "/login", "to /login: moved"),
        (302, "http://[", "to a URL that cannot be read: moved"),
        (400, "https://example.org/", "moved"),
    ],
)
def test_a_redirects_target_is_told_without_what_may_be_secret(status: int, location: str, said: str) -> None:
    assert said_by(httpx.Response(status, headers={"Location": location}, content=b"moved")) == said


def test_the_innermost_message_of_a_broken_connection_is_the_one_that_helps() -> None:
    def raised(*messages: str) -> BaseException:
        """An exception raised while another was handled, and so on."""
        found = OSError(messages[0])
        for message in messages[1:]:
            outer = OSError(message)
            outer.__context__ = found
            found = outer
        return found

    assert cause(raised("refused", "all attempts failed")) == "refused"
    assert cause(raised("", "all attempts failed", "")) == "all attempts failed"
    assert cause(raised("", "")) == "the connection broke"
    outer = OSError("outer")
    outer.__cause__, outer.__context__ = OSError("the cause"), OSError("beside the point")
    assert cause(outer) == "the cause"


def test_a_long_message_is_quoted_in_part() -> None:
    assert quoted("x" * 1000, None) == "x" * 300
