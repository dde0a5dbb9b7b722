"""What the environment says of proxies and certificates. Of a variable the name is told, never its value."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from qwen3_rag import ConfigurationError
from qwen3_rag.backends.remote import RemoteUnavailableError
from qwen3_rag.backends.remote.connections import build_client, proxy_variable, through_proxy
from server import Answer, Server
from workload import RIGHT

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]

UNUSABLE = {
    "a network": ({"NO_PROXY": "localhost,hunter2,fd00::/8"}, "NO_PROXY"),
    "a scheme": ({"ALL_PROXY": "socks://me:hunter2@127.0.0.1:1080"}, "ALL_PROXY"),
    "a port": ({"http_proxy": "http://hunter2:port", "NO_PROXY": "example.org"}, "http_proxy, NO_PROXY"),
    "a file": ({"SSL_CERT_FILE": "/nowhere/hunter2.pem"}, "SSL_CERT_FILE"),
}


@pytest.mark.parametrize("fault", list(UNUSABLE))
def test_variables_that_cannot_be_used_are_named_and_their_values_are_not(
    fault: str, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, names = UNUSABLE[fault]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"\({names}\): .*; correct or unset") as caught:
        embedder("http://127.0.0.1:9").embed_documents(["t"])
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_a_socks_proxy_without_its_package_says_what_to_install() -> None:
    def make() -> httpx.Client:
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.")

    with pytest.raises(ConfigurationError, match="pip install socksio"):
        build_client(make)


def test_a_broken_certificate_file_is_named_by_its_variable(
    tmp_path: Path, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.pem").write_text("nothing of the kind")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "broken.pem"))
    with pytest.raises(ConfigurationError, match=r"\(SSL_CERT_FILE\): it names no readable cert"):
        embedder("http://127.0.0.1:9").embed_documents(["t"])


def test_an_error_of_a_connection_names_the_variable_of_the_proxy(
    serve: Serve, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:hunter2@127.0.0.1:9")
    url = serve(RIGHT).url
    with pytest.raises(RemoteUnavailableError, match="through the proxy set in HTTP_PROXY; gave up") as caught:
        embedder(url, max_retries=0).embed_documents(["t"])
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    assert embedder(url).embed_documents(["t"]).shape == (1, 64)


def test_the_variable_of_a_proxy_is_the_one_that_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_variable("http://example.org/v1") is None
    assert through_proxy("http://example.org/v1") == ""
    monkeypatch.setenv("ALL_PROXY", "http://a:1")
    assert proxy_variable("http://example.org/v1") == "ALL_PROXY"
    assert through_proxy("http://example.org/v1") == " through the proxy set in ALL_PROXY"
    monkeypatch.setenv("https_proxy", "http://b:1")
    assert proxy_variable("https://example.org/v1") == "https_proxy"
    assert proxy_variable("http://example.org/v1") == "ALL_PROXY"
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert proxy_variable("https://api.example.org:8000/v1") is None
