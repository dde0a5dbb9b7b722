"""The ways of asking each server, as its users' clients do. Pure functions of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qwen3_rag.backends.remote.servers.answers import check_count, in_order, member, only_class
from qwen3_rag.backends.remote.servers.base import root, versioned
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.prompts import rerank_halves
from qwen3_rag.server_names import ServerName, TemplateSide
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.reranking_faults import Pair
from qwen3_rag.verification.subject import Input

_SERVICES: Final = "/api/v1/services"


@dataclass(frozen=True)
class Route:
    """One way of asking a server.

    Attributes:
        name: path, and how the inputs are sent.
        url: where to.
        body: inputs of one request -> JSON.
        read: JSON and number of inputs -> one value per input, in order.
        groups: inputs -> what all inputs of one request must have in common.
        takes_ids: whether the inputs are sent as exact token ids.
    """

    name: str
    url: str
    body: Callable[[Sequence[Any]], dict[str, Any]]
    read: Callable[[Any, int], list[Any]]
    groups: Callable[[Any], object] = lambda _: None
    takes_ids: bool = False


def routes(
    url: str,
    server: ServerName,
    kind: ModelKind,
    *,
    model: str,
    template: TemplateSide,
    instruction: str,
    dimensions: int | None,
) -> list[Route]:
    """Return the ways of asking a server, token ids first.

    Args:
        url: base URL.
        server: what it speaks.
        kind: what is asked for.
        model: the model's name at the server.
        template: who renders rerank prompts that go as text.
        instruction: task sentence of rerank prompts and of DashScope's queries.
        dimensions: length of vectors to ask for; None asks for none.

    Raises:
        ConfigurationError: the server does not do this kind of work.
    """
    if kind == "embedding":
        extra = {} if dimensions is None else {"dimensions": dimensions}
        return _embedding_routes(url, server, model, extra, instruction)
    if dimensions is not None:
        raise ConfigurationError("--dimensions is for embedding models only")
    return _reranking_routes(url, server, model, template, instruction)


def _embedding_routes(
    url: str, server: ServerName, model: str, extra: dict[str, Any], instruction: str
) -> list[Route]:
    def listed(answer: Any, count: int) -> list[Any]:
        return in_order(member(answer, "data"), count, index="index", value="embedding")

    def plain(answer: Any, count: int) -> list[Any]:
        check_count(answer, count)
        rows: list[Any] = answer
        return rows

    openai = root(url) + "/v1/embeddings" if server == "vllm" else versioned(url, "v1") + "/embeddings"
    text = Route(
        "POST /v1/embeddings, text",
        openai,
        lambda inputs: {"model": model, "input": [_embedded(i) for i in inputs], **extra},
        listed,
    )
    if server == "vllm":
        ids = Route(
            "POST /v1/embeddings, token ids",
            openai,
            lambda inputs: {"model": model, "input": [i.token_ids for i in inputs], **extra},
            listed,
            takes_ids=True,
        )
        return [ids, text]
    if server == "openai":
        return [text]
    if server == "tei":
        return [
            Route(
                "POST /embed, text",
                root(url) + "/embed",
                lambda inputs: {"inputs": [_embedded(i) for i in inputs], **extra},
                plain,
            )
        ]
    if server == "dashscope":
        return [_dashscope_embedding(url, model, extra, instruction)]
    raise ConfigurationError(f"--server {server} is not for embedding")


def _dashscope_embedding(url: str, model: str, extra: dict[str, Any], instruction: str) -> Route:
    def body(inputs: Sequence[Input]) -> dict[str, Any]:
        parameters: dict[str, Any] = {"text_type": "document"}
        if _text(inputs[0]).is_query:
            parameters = {"text_type": "query", "instruct": instruction}
        if extra:
            parameters["dimension"] = extra["dimensions"]
        texts = [_text(i).text for i in inputs]
        return {"model": model, "input": {"texts": texts}, "parameters": parameters}

    return Route(
        "DashScope text-embedding, text",
        root(url).removesuffix("/api") + f"{_SERVICES}/embeddings/text-embedding/text-embedding",
        body,
        lambda answer, count: in_order(
            member(answer, "output", "embeddings"), count, index="text_index", value="embedding"
        ),
        lambda one: _text(one).is_query,
    )


def _reranking_routes(
    url: str, server: ServerName, model: str, template: TemplateSide, instruction: str
) -> list[Route]:
    def words(inputs: Sequence[Input]) -> tuple[str, list[str]]:
        pairs = [_pair(i) for i in inputs]
        sent = pairs if template == "server" else [rerank_halves(instruction, *pair) for pair in pairs]
        return sent[0][0], [document for _, document in sent]

    def cohere(inputs: Sequence[Input]) -> dict[str, Any]:
        query, documents = words(inputs)
        return {"model": model, "query": query, "documents": documents, "top_n": len(inputs)}

    def tei(inputs: Sequence[Input]) -> dict[str, Any]:
        query, texts = words(inputs)
        return {"query": query, "texts": texts}

    def dashscope(inputs: Sequence[Input]) -> dict[str, Any]:
        query, documents = words(inputs)
        parameters = {"top_n": len(inputs), "return_documents": False, "instruct": instruction}
        return {"model": model, "input": {"query": query, "documents": documents}, "parameters": parameters}

    def results(*names: str, value: str) -> Callable[[Any, int], list[Any]]:
        return lambda answer, count: in_order(member(answer, *names), count, index="index", value=value)

    sent = "text" if template == "server" else "rendered text"
    if server == "vllm":
        ids = Route(
            "POST /classify, token ids",
            root(url) + "/classify",
            lambda inputs: {"model": model, "input": [i.token_ids for i in inputs]},
            lambda answer, count: [only_class(row) for row in results("data", value="probs")(answer, count)],
            takes_ids=True,
        )
        read = results("results", value="relevance_score")
        return [ids, Route(f"POST /rerank, {sent}", root(url) + "/rerank", cohere, read, _by_query)]
    if server in ("cohere", "jina"):
        path = versioned(url, "v2" if server == "cohere" else "v1") + "/rerank"
        read = results("results", value="relevance_score")
        return [Route(f"POST /rerank, {sent}", path, cohere, read, _by_query)]
    if server == "tei":
        return [Route(f"POST /rerank, {sent}", root(url) + "/rerank", tei, results(value="score"), _by_query)]
    if server == "dashscope":
        path = root(url).removesuffix("/api") + f"{_SERVICES}/rerank/text-rerank/text-rerank"
        read = results("output", "results", value="relevance_score")
        return [Route("DashScope text-rerank, text", path, dashscope, read, _by_query)]
    raise ConfigurationError(f"--server {server} is not for reranking")


def _embedded(one: Input) -> str:
    text = _text(one)
    return text.prompt + text.text


def _by_query(one: Input) -> object:
    return _pair(one)[0]


def _text(one: Input) -> Text:
    assert isinstance(one.words, Text), "embedding endpoints are asked for texts"
    return one.words


def _pair(one: Input) -> Pair:
    assert isinstance(one.words, tuple), "reranking endpoints are asked for pairs"
    return one.words
