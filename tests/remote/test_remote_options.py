"""Options: what is refused, and with what reason; where base URLs lead; and what a server cannot be told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from qwen3_rag import ConfigurationError, Embedder, Reranker
from qwen3_rag.backends.remote import RemoteOptions
from qwen3_rag.backends.remote.options import parse_options
from qwen3_rag.backends.remote.servers import Setup, dialect_of
from qwen3_rag.models import ModelKind

URL = "http://localhost:8000"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (None, "needs 'server'"),
        ({}, "needs 'server'"),
        ({"server": "vllm"}, "needs 'base_url'"),
        ({"server": "ollama", "base_url": URL}, "one of .*'vllm'.*got 'ollama'"),
        ({"server": "vllm", "base_url": URL, "z": 1, "a": 2, "b": 3}, "unknown names 'a', 'b', 'z'; there are"),
        ({"server": "vllm", "base_url": URL, "timout": 3}, "unknown names 'timout'; there are: .*timeout"),
        ({"server": "vllm", "base_url": []}, "a URL or a list of URLs"),
        ({"server": "vllm", "base_url": 8000}, "a URL or a list of URLs"),
        ({"server": "vllm", "base_url": [None]}, "must be a string"),
        ({"server": "vllm", "base_url": "localhost:8000"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://host:port"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://host:0"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://:8000"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "ftp://host"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": URL + "/v1#key"}, "of host localhost holds a user name, a password or"),
        ({"server": "vllm", "base_url": "http://a..b"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://é_é.example"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://xn--zzzzzzz99999.x"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://\u3002:80"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://[v1.x]:1"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://xn--:1"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": URL, "path": "/a\tb"}, "path .* free of control characters"),
        ({"server": "vllm", "base_url": URL, "path": "/a\ud800b"}, "path .* free of control characters"),
        ({"server": "vllm", "base_url": URL + "\n"}, "no space, line break .* at place 21"),
        ({"server": "vllm", "base_url": URL + "\u200b"}, "no space, line break .* at place 21"),
        ({"server": "vllm", "base_url": "http://ho st"}, "no space, line break .* at place 9"),
        ({"server": "vllm", "base_url": URL, "timeout": 0}, "timeout .* above 0, got 0"),
        ({"server": "vllm", "base_url": URL, "deadline": float("nan")}, "deadline"),
        ({"server": "vllm", "base_url": URL, "deadline": math.inf}, "deadline .* got inf"),
        ({"server": "vllm", "base_url": URL, "deadline": 30}, "deadline .* more than timeout, 60 s.* got 30"),
        ({"server": "vllm", "base_url": URL, "timeout": 300}, "deadline .* more than timeout, 300 s.* got 300"),
        ({"server": "vllm", "base_url": URL, "timeout": True}, "timeout .* got True"),
        ({"server": "vllm", "base_url": URL, "timeout": "3"}, "timeout .* got '3'"),
        ({"server": "vllm", "base_url": URL, "max_retries": -1}, "max_retries .* 0 or more, got -1"),
        ({"server": "vllm", "base_url": URL, "max_retries": None}, "max_retries .* 0 or more, got None"),
        ({"server": "vllm", "base_url": URL, "max_connections": 0}, "max_connections .* 1 or more"),
        ({"server": "vllm", "base_url": URL, "max_connections": True}, "max_connections .* got True"),
        ({"server": "vllm", "base_url": URL, "max_inputs_per_request": 1.5}, "a whole number"),
        ({"server": "vllm", "base_url": URL, "served_model": ""}, "served_model"),
        ({"server": "vllm", "base_url": URL, "served_model": 7}, "served_model .* got 'int'"),
        ({"server": "vllm", "base_url": URL, "path": "embed"}, 'starts with "/"'),
        ({"server": "tei", "base_url": URL, "template": "both"}, "template .*'client', 'server'"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(options: dict[str, Any] | None, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_options(options)


def test_the_least_that_options_allow_is_accepted() -> None:
    ones = dict.fromkeys(("max_connections", "max_inputs_per_request", "max_tokens_per_request"), 1)
    options = parse_options({"server": "vllm", "base_url": URL, "max_retries": 0, **ones})
    assert (options.max_retries, options.max_connections) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("reranking", {"server": "openai"}, "'openai' is not for reranking; these are: 'vllm'"),
        (
            "embedding",
            {"server": "cohere"},
            "'cohere' is not for embedding; these are: 'vllm', 'tei', 'openai', 'dashscope'$",
        ),
        ("reranking", {"server": "tei"}, "needs template"),
        ("reranking", {"server": "jina"}, "needs template"),
        (
            "reranking",
            {"server": "vllm", "template": "client"},
            "template means nothing here: vLLM gets token ids",
        ),
        ("reranking", {"server": "dashscope", "template": "server"}, "applies its own template"),
        ("embedding", {"server": "tei", "template": "client"}, "template means nothing here"),
    ],
)
def test_options_that_do_not_fit_the_server_are_refused(kind: ModelKind, options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        dialect_of(Setup(RemoteOptions(base_url=(URL,), **options), "m", 64, len), kind)


ENDPOINTS = [
    ("vllm", "embedding", "http://h:1", "http://h:1/v1/embeddings"),
    ("vllm", "embedding", "http://h:1/v1/", "http://h:1/v1/embeddings"),
    ("vllm", "embedding", "http://h:1/team/a", "http://h:1/team/a/v1/embeddings"),
    ("vllm", "reranking", "http://h:1/v1", "http://h:1/classify"),
    ("tei", "embedding", "http://h:1", "http://h:1/embed"),
    ("tei", "reranking", "http://h:1/", "http://h:1/rerank"),
    ("openai", "embedding", "http://h:1", "http://h:1/v1/embeddings"),
    ("openai", "embedding", "https://h/compatible-mode/v1", "https://h/compatible-mode/v1/embeddings"),
    ("openai", "embedding", "https://h/v1beta/openai/", "https://h/v1beta/openai/embeddings"),
    ("cohere", "reranking", "https://h", "https://h/v2/rerank"),
    ("cohere", "reranking", "https://h/v1", "https://h/v1/rerank"),
    ("jina", "reranking", "https://h", "https://h/v1/rerank"),
    (
        "dashscope",
        "embedding",
        "https://h",
        "https://h/api/v1/services/embeddings/text-embedding/text-embedding",
    ),
]


@pytest.mark.parametrize(("server", "kind", "base_url", "url"), ENDPOINTS)
def test_base_urls_lead_to_endpoints(server: Any, kind: ModelKind, base_url: str, url: str) -> None:
    template = "client" if kind == "reranking" and server in ("tei", "cohere", "jina") else None
    options = parse_options({"server": server, "base_url": base_url, "template": template})
    assert dialect_of(Setup(options, "m", 64, len), kind).endpoint(options.base_url[0]) == url


@pytest.mark.parametrize("path", ["", "/api/v1", "/compatible-mode/v1", "/compatible-api/v1/"])
@pytest.mark.parametrize(
    ("model", "end"),
    [("qwen3-rerank", "compatible-api/v1/reranks"), ("m", "api/v1/services/rerank/text-rerank/text-rerank")],
)
def test_any_base_url_of_dashscope_leads_to_the_models_own_endpoint(path: str, model: str, end: str) -> None:
    options = parse_options({"server": "dashscope", "base_url": f"https://h{path}"})
    endpoint = dialect_of(Setup(options, model, 64, len), "reranking").endpoint
    assert endpoint(options.base_url[0]) == f"https://h/{end}"


def test_a_path_is_put_behind_the_whole_base_url_of_dashscope() -> None:
    options = parse_options({"server": "dashscope", "base_url": "https://h/api/v1", "path": "/mine"})
    endpoint = dialect_of(Setup(options, "m", 64, len), "embedding").endpoint
    assert endpoint(options.base_url[0]) == "https://h/api/v1/mine"


def test_the_path_can_be_chosen() -> None:
    options = parse_options({"server": "openai", "base_url": "http://h/v1", "path": "/embed/me"})
    dialect = dialect_of(Setup(options, "m", 64, len), "embedding")
    assert dialect.endpoint("http://h/v1") == "http://h/v1/embed/me"


def test_a_server_that_cannot_be_told_the_instruction_says_so(reranking_folder: Path) -> None:
    kwargs = {"server": "tei", "base_url": URL, "template": "server"}
    with (
        Reranker(str(reranking_folder), backend="remote", model_kwargs=kwargs) as reranker,
        pytest.raises(ConfigurationError, match="always uses the default instruction"),
    ):
        reranker.score("q", ["d"], instruction="Find recipes")


def test_defaults_of_the_core_are_left_to_the_server(embedding_folder: Path) -> None:
    kwargs = {"server": "vllm", "base_url": URL}
    with Embedder(str(embedding_folder), backend="remote", device="cuda:7", model_kwargs=kwargs) as embedder:
        backend = embedder.load().backend
    assert backend is not None
    assert backend.concurrency == 16
    assert backend.token_budget == 16384 * 8 // 9, "one request's worth: a run holds up what comes later"


def test_a_list_of_devices_is_answered_with_a_list_of_servers() -> None:
    with pytest.raises(ConfigurationError, match=r"no device of this machine.*cuda:1.*\"base_url\": \["):
        Embedder("m", backend="remote", device=["cuda:0", "cuda:1"], model_kwargs={"base_url": URL})
