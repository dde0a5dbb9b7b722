"""`qwen3-rag verify`: hosts that are slow, busy, absent or elsewhere, and keys that show nowhere."""

from __future__ import annotations

import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_model import Served
from qwen3_rag.backends.remote.keys import ApiKey
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification.connection import AnswerError, Connection
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.endpoint import Endpoint
from qwen3_rag.verification.reference import Reference
from qwen3_rag.verification.routes import routes
from qwen3_rag.verification.subject import Input, Subject
from subjects import named, verified
from verify_run import DEAD, run


def test_the_timeout_is_that_of_a_whole_answer(url: str, embedder: Served) -> None:
    """Every byte of this one comes in time, and the last one never."""
    embedder.fault = "never ends"
    connection = Connection(None, timeout=0.3)
    with pytest.raises(OSError, match=r"/v1/embeddings does not answer: no whole answer within 0\.3 s"):
        connection.post(url + "/v1/embeddings", {})
    connection.close()


def test_a_host_that_swallows_connections_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def swallowed(client: httpx.AsyncClient, *_: object, **__: object) -> None:
        assert client.timeout.connect == 10
        raise httpx.ConnectTimeout("")

    monkeypatch.setattr(httpx.AsyncClient, "request", swallowed)
    with (
        Endpoint(DEAD, key=None, timeout=120) as endpoint,
        pytest.raises(OSError, match="cannot be reached: no connection within 10 s"),
    ):
        endpoint.check_reachable()


def test_that_it_went_by_a_proxy_is_told(embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    result = run("--url", "http://gpu.example:8000", "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert "http://gpu.example:8000 cannot be reached: " in result.stderr
    assert "(ConnectError) through the proxy set in HTTP_PROXY" in result.stderr


def test_model_and_connections_are_closed_also_when_it_ends_early(
    url: str, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    for one in (Endpoint, Reference):

        def close(self: Any, close: Any = one.close) -> None:
            closed.append(type(self).__name__)
            close(self)

        monkeypatch.setattr(one, "close", close)
    result = run("--url", url, "--model", embedding_checkpoint, "--max-tokens", "100")
    assert "must be 256 to 32768" in result.stderr
    assert closed == ["Reference", "Endpoint"]


def test_the_api_key_is_sent_and_shown_nowhere(
    url: str, embedder: Served, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = embedder.key = "k-5f1d-not-a-real-one"
    monkeypatch.setenv("SOME_KEY", key)
    try:
        asked = ("--url", url, "--model", embedding_checkpoint, "--send", "ids")
        assert run(*asked, "--api-key-env", "SOME_KEY").exit_code == 0
        refused = run(*asked)
        assert refused.exit_code == 2
        assert "--api-key-env" in refused.stderr
        for fault, status in (("refused", 400), ("error within", 200)):
            embedder.fault = fault
            told = run(*asked, "--api-key-env", "SOME_KEY")
            assert told.exit_code == 1
            assert f"refused: it refuses the request: HTTP {status} from {url}/v1/embeddings" in told.stdout
            assert "not supported..." in told.stdout
            assert "WRONG; nothing to compare" in told.stdout
            assert "checked up to" not in told.stdout
            assert "[API key]" in told.stdout
            assert key[:4] not in told.output
    finally:
        embedder.key = None


@pytest.mark.parametrize("fault", ["nobody", "unreachable", "no JSON", "refused", "error within"])
def test_no_exception_holds_the_api_key(fault: str, url: str, embedder: Served) -> None:
    """Not in its chain either: an HTTP client's exception holds the request, and that its headers."""
    embedder.fault = fault
    key = "k-5f1d-not-a-real-one"
    endpoint = Endpoint(
        DEAD if fault in ("nobody", "unreachable") else url,
        key=ApiKey(key, source="test"),
        timeout=5,
    )
    (way,) = routes(
        endpoint.url,
        "openai",
        "embedding",
        model="m",
        template="server",
        instruction="",
        instruction_field=None,
        dimensions=None,
    )
    ask = partial(endpoint.ask, way, [Input(Text("a", "", is_query=False), [])])
    with endpoint, pytest.raises((OSError, AnswerError)) as caught:
        endpoint.check_reachable() if fault == "nobody" else ask()
    error: BaseException | None = caught.value
    while error is not None:
        assert not type(error).__module__.startswith(("httpx", "json")), type(error)
        assert key not in repr(vars(error)) + repr(error.args)
        error = error.__cause__ or error.__context__


def test_no_local_variable_holds_the_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    key = ApiKey("k-5f1d-" + "not-a-real-one", source="test")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE") as caught:
        Endpoint("https://127.0.0.1:9", key=key, timeout=5)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "k-5f1d-not-a-real-one" not in str([frame.locals for frame in told.stack])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NO_PROXY", "localhost,::1,fd00::/8"),
        ("ALL_PROXY", "socks://user:hunter2@host:1"),
        ("https_proxy", "host:notaport"),
        ("SSL_CERT_FILE", "/nowhere/hunter2"),
        ("ALL_PROXY", "socks5://user:hunter2@host:1"),
    ],
)
def test_an_environment_that_no_client_can_be_made_with_is_named_without_its_values(
    name: str, value: str, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "socksio", None)  # what SOCKS needs is not installed
    result = run("--url", DEAD, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert name in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_for_a_while_is_asked_again(
    status: int, url: str, embedder: Served, embedding_checkpoint: Path
) -> None:
    embedder.failures = [status] * 3
    result = run("--url", url, "--model", embedding_checkpoint, "--send", "ids")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_stays_busy_could_not_be_asked(
    status: int, url: str, embedder: Served, embedding_checkpoint: Path
) -> None:
    embedder.failures = [status] * 100
    result = run("--url", url, "--model", embedding_checkpoint, "--send", "ids")
    assert result.exit_code == 2, result.output
    assert f"could not be asked: HTTP {status}" in result.stderr
    assert "not now" in result.stderr
    assert len(embedder.failures) == 95


def test_all_pauses_together_take_the_timeout_at_most(url: str, embedder: Served) -> None:
    pauses: list[float] = []
    embedder.failures, embedder.retry_after = [503] * 100, "30"
    connection = Connection(None, timeout=60, sleep=pauses.append)
    with pytest.raises(OSError, match="could not be asked"):
        connection.post(url + "/v1/embeddings", {})
    connection.close()
    assert pauses == [30, 30]


def test_pauses_grow_from_one_second_where_the_server_names_none(url: str, embedder: Served) -> None:
    pauses: list[float] = []
    embedder.failures, embedder.retry_after = [503] * 100, None
    connection = Connection(None, timeout=60, sleep=pauses.append)
    with pytest.raises(OSError, match="could not be asked"):
        connection.post(url + "/v1/embeddings", {})
    connection.close()
    assert pauses == [1, 2, 4, 8]


def test_an_internal_error_is_a_refusal_and_not_asked_for_again(embedding: Subject, embedder: Served) -> None:
    """These inputs may have caused it."""
    embedder.failures = [500]
    report = verified(embedding, embedder, "openai")
    assert named(report, "text") == ["refused"], report
    assert "HTTP 500 from" in report.checks[0].findings[0].what
    assert (report.longest, report.checks[0].texts, report.checks[0].difference) == (0, 0, None)


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_another_key_could_not_be_asked(
    status: int, embedding: Subject, embedder: Served
) -> None:
    embedder.failures = [status]
    with pytest.raises(ConfigurationError, match=rf"wants another API key \(HTTP {status}\); .* --api-key-env"):
        verified(embedding, embedder, "openai")


def test_a_redirect_is_told_with_where_it_leads_and_no_query(
    url: str, embedder: Served, embedding_checkpoint: Path
) -> None:
    embedder.fault = "redirect"
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert "redirects (HTTP 308) to https://example.com/v1/embeddings;" in result.stderr
    assert "secret" not in result.output
