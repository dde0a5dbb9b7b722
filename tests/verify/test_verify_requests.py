"""What is asked of each server, as its own reference has it."""

from __future__ import annotations

from typing import Any

import pytest
from oracle import RERANK_PREFIX, RERANK_SUFFIX
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.routes import Route, routes
from qwen3_rag.verification.subject import Input

QUERY = Input(Text("a", "Instruct: T\nQuery:", is_query=True), [1, 2])
DOCUMENT = Input(Text("b", "", is_query=False), [3])
PAIRS = [Input(("q", "a"), [1, 2]), Input(("q", "b"), [3])]


def ways(server: Any, kind: Any, *, model: str = "m", template: Any = "server", **changes: Any) -> list[Route]:
    unset = {"dimensions": None, "instruction_field": None}
    options: dict[str, Any] = {"url": "http://h", "instruction": "T", **unset, **changes}
    return routes(server=server, kind=kind, model=model, template=template, **options)


@pytest.mark.parametrize(
    ("server", "dimensions", "paths_and_bodies"),
    [
        ("openai", None, [("/v1/embeddings", {"model": "m", "input": ["Instruct: T\nQuery:a", "b"]})]),
        (
            "vllm",
            8,
            [
                ("/v1/embeddings", {"model": "m", "input": [[1, 2], [3]], "dimensions": 8}),
                ("/v1/embeddings", {"model": "m", "input": ["Instruct: T\nQuery:a", "b"], "dimensions": 8}),
            ],
        ),
        ("tei", None, [("/embed", {"inputs": ["Instruct: T\nQuery:a", "b"]})]),
        ("tei", 8, [("/embed", {"inputs": ["Instruct: T\nQuery:a", "b"], "dimensions": 8})]),
    ],
)
def test_vectors_are_asked_for(server: str, dimensions: int | None, paths_and_bodies: Any) -> None:
    made = ways(server, "embedding", dimensions=dimensions)
    asked = [(way.url.removeprefix("http://h"), way.body([QUERY, DOCUMENT])) for way in made]
    assert asked == paths_and_bodies


def test_dashscope_puts_the_instruction_before_queries_itself_and_takes_them_apart_from_documents() -> None:
    (way,) = ways("dashscope", "embedding", dimensions=8)
    assert way.body([QUERY]) == {
        "model": "m",
        "input": {"texts": ["a"]},
        "parameters": {"text_type": "query", "instruct": "T", "dimension": 8},
    }
    assert way.body([DOCUMENT])["parameters"] == {"text_type": "document", "dimension": 8}
    assert way.group(QUERY) != way.group(DOCUMENT)


@pytest.mark.parametrize(
    ("server", "model", "paths_and_bodies"),
    [
        (
            "vllm",
            "m",
            [
                ("/classify", {"model": "m", "input": [[1, 2], [3]]}),
                ("/rerank", {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 2}),
            ],
        ),
        ("cohere", "m", [("/v2/rerank", {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 2})]),
        ("jina", "m", [("/v1/rerank", {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 2})]),
        ("tei", "m", [("/rerank", {"query": "q", "texts": ["a", "b"]})]),
        (
            "dashscope",
            "m",
            [
                (
                    "/api/v1/services/rerank/text-rerank/text-rerank",
                    {
                        "model": "m",
                        "input": {"query": "q", "documents": ["a", "b"]},
                        "parameters": {"top_n": 2, "instruct": "T", "return_documents": False},
                    },
                )
            ],
        ),
        (
            "dashscope",
            "qwen3-rerank",
            [
                (
                    "/compatible-api/v1/reranks",
                    {
                        "model": "qwen3-rerank",
                        "query": "q",
                        "documents": ["a", "b"],
                        "top_n": 2,
                        "instruct": "T",
                    },
                )
            ],
        ),
    ],
)
def test_scores_are_asked_for(server: str, model: str, paths_and_bodies: Any) -> None:
    made = ways(server, "reranking", model=model)
    assert [(way.url.removeprefix("http://h"), way.body(PAIRS)) for way in made] == paths_and_bodies


@pytest.mark.parametrize(("server", "documents"), [("vllm", "documents"), ("tei", "texts")])
def test_a_client_that_renders_the_template_sends_prompts_whole(server: str, documents: str) -> None:
    way = ways(server, "reranking", template="client")[-1]
    assert way.name == "POST /rerank, rendered text"
    body = way.body(PAIRS)
    head = RERANK_PREFIX + "<Instruct>: T\n<Query>: q\n<Document>: "
    assert [body["query"] + one for one in body[documents]] == [head + one + RERANK_SUFFIX for one in "ab"]


@pytest.mark.parametrize("server", ["vllm", "tei", "cohere", "jina"])
def test_a_server_that_renders_the_template_is_told_the_instruction_in_the_named_field(server: str) -> None:
    plain, told = (ways(server, "reranking", instruction_field=field)[-1] for field in (None, "task"))
    assert told.body(PAIRS) == {**plain.body(PAIRS), "task": "T"}
    assert (plain.tells_instruction, told.tells_instruction) == (False, True)
    assert ways(server, "reranking", template="client")[-1].tells_instruction
    assert ways("vllm", "reranking")[0].tells_instruction, "ids hold it"


@pytest.mark.parametrize(
    ("server", "kind", "template"),
    [
        ("tei", "reranking", "client"),
        ("dashscope", "reranking", "server"),
        ("vllm", "embedding", "server"),
        ("dashscope", "embedding", "server"),
    ],
)
def test_a_field_for_the_instruction_is_refused_where_it_means_nothing(
    server: str, kind: str, template: str
) -> None:
    with pytest.raises(ConfigurationError, match="--instruction-field is for rerankers at servers that render"):
        ways(server, kind, template=template, instruction_field="task")


@pytest.mark.parametrize("server", ["vllm", "tei", "cohere", "jina", "dashscope"])
def test_pairs_of_another_query_are_asked_for_in_another_request(server: str) -> None:
    way = ways(server, "reranking")[-1]
    assert way.group(PAIRS[0]) == way.group(PAIRS[1])
    assert way.group(PAIRS[0]) != way.group(Input(("p", "a"), []))


@pytest.mark.parametrize(
    ("server", "kind"), [("openai", "reranking"), ("cohere", "embedding"), ("jina", "embedding")]
)
def test_a_server_is_not_asked_for_what_it_cannot_give(server: str, kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--server {server} is not for {kind}"):
        ways(server, kind)


@pytest.mark.parametrize(
    ("server", "kind", "base", "paths"),
    [
        ("vllm", "embedding", "/v1", ["/v1/embeddings", "/v1/embeddings"]),
        ("vllm", "reranking", "/v1", ["/classify", "/rerank"]),
        ("tei", "embedding", "/v1", ["/embed"]),
        ("tei", "reranking", "/v1", ["/rerank"]),
        ("openai", "embedding", "/v1", ["/v1/embeddings"]),
        ("openai", "embedding", "/api/openai/v3", ["/api/openai/v3/embeddings"]),
        ("cohere", "reranking", "/v2", ["/v2/rerank"]),
        ("cohere", "reranking", "/v1", ["/v1/rerank"]),
        ("jina", "reranking", "/v1", ["/v1/rerank"]),
        ("vllm", "embedding", "/proxied", ["/proxied/v1/embeddings", "/proxied/v1/embeddings"]),
        ("tei", "reranking", "/proxied", ["/proxied/rerank"]),
    ],
)
def test_a_base_url_may_include_a_version_and_a_path(
    server: str, kind: str, base: str, paths: list[str]
) -> None:
    assert [way.url for way in ways(server, kind, url="http://h" + base)] == ["http://h" + one for one in paths]
