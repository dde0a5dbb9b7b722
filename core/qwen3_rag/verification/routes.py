"""The ways of asking each server, as its users' clients do. Pure functions of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qwen3_rag.backends.remote.servers.answers import check_count, in_order, member, only_class, relevances
from qwen3_rag.backends.remote.servers.base import root, versioned
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.prompts import rerank_halves
from qwen3_rag.server_names import ServerName, TemplateSide
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.reranking_faults import Pair
from qwen3_rag.verification.subject import Input

_SERVICES: Final = "/api/v1/services"
"""Path of DashScope's native services, below its host."""

_FLAT_RERANKER: Final = "qwen3-rerank"
"""The reranker that DashScope's reference gives a flat API beside its native one."""


@dataclass(frozen=True)
class Route:
    """One way of asking a server.

    Attributes:
        service: path or name of what is asked, for reports.
        sends: how the inputs are sent, for reports.
        url: where requests go.
        body: inputs of one request -> JSON.
        read_answer: JSON and number of inputs -> one value per input, in order. Raises `UnusableAnswerError`.
        group: input -> its group; inputs of one request are of one group.
        takes_ids: whether the inputs are sent as exact token ids.
        tells_instruction: whether prompts can have another instruction than the default one.
    """

    service: str
    sends: str
    url: str
    body: Callable[[Sequence[Any]], dict[str, Any]]
    read_answer: Callable[[Any, int], list[Any]]
    group: Callable[[Any], object] = lambda _: None
    takes_ids: bool = False
    tells_instruction: bool = True

    @property
    def name(self) -> str:
        """What is asked and how, for reports."""
        return f"{self.service}, {self.sends}"


@dataclass(frozen=True)
class _Options:
    """What routes depend on, besides server and kind; see `routes`."""

    url: str
    model: str
    template: TemplateSide
    instruction: str
    instruction_field: str | None
    dimensions: int | None


def routes(
    url: str,
    server: ServerName,
    kind: ModelKind,
    *,
    model: str,
    template: TemplateSide,
    instruction: str,
    instruction_field: str | None,
    dimensions: int | None,
) -> list[Route]:
    """Return the ways of asking a server, token ids first.

    Args:
        url: base URL.
        server: what it speaks.
        kind: of the model.
        model: the model's name at the server.
        template: who renders rerank prompts that are sent as text.
        instruction: task sentence of rerank prompts and of DashScope's queries.
        instruction_field: member of rerank requests for it, where the server renders the template; or None.
        dimensions: requested length of vectors; None requests none.

    Raises:
        ConfigurationError: the server does not serve this kind of model, a reranker is given `dimensions`, or
            `instruction_field` has no meaning.
    """
    renders = kind == "reranking" and server != "dashscope" and template == "server"
    if instruction_field is not None and not renders:
        raise ConfigurationError(
            "--instruction-field is for rerankers at servers that render the template from the request's texts "
            "(vllm, tei, cohere, jina with --template server); leave it out"
        )
    if kind == "reranking" and dimensions is not None:
        raise ConfigurationError("--dimensions is for embedding models only")
    make = _ROUTES.get((server, kind))
    if make is None:
        raise ConfigurationError(f"--server {server} is not for {kind}")
    return make(_Options(url, model, template, instruction, instruction_field, dimensions))


def _vllm_embedding(options: _Options) -> list[Route]:
    url = root(options.url) + "/v1/embeddings"
    ids = Route(
        "POST /v1/embeddings",
        "token ids",
        url,
        lambda inputs: _openai_body(options, [i.token_ids for i in inputs]),
        _data_embeddings,
        takes_ids=True,
    )
    return [ids, _openai_text(options, url)]


def _openai_embedding(options: _Options) -> list[Route]:
    return [_openai_text(options, versioned(options.url, "v1") + "/embeddings")]


def _openai_text(options: _Options, url: str) -> Route:
    return Route(
        "POST /v1/embeddings",
        "text",
        url,
        lambda inputs: _openai_body(options, [_embedded(i) for i in inputs]),
        _data_embeddings,
    )


def _openai_body(options: _Options, inputs: Sequence[Any]) -> dict[str, Any]:
    return {"model": options.model, "input": list(inputs), **_if_given("dimensions", options.dimensions)}


def _data_embeddings(answer: Any, count: int) -> list[Any]:
    return in_order(member(answer, "data"), count, index="index", value="embedding")


def _tei_embedding(options: _Options) -> list[Route]:
    def body(inputs: Sequence[Input]) -> dict[str, Any]:
        return {"inputs": [_embedded(i) for i in inputs], **_if_given("dimensions", options.dimensions)}

    def read(answer: Any, count: int) -> list[Any]:
        check_count(answer, count)
        rows: list[Any] = answer
        return rows

    return [Route("POST /embed", "text", root(options.url) + "/embed", body, read)]


def _dashscope_embedding(options: _Options) -> list[Route]:
    def body(inputs: Sequence[Input]) -> dict[str, Any]:
        parameters: dict[str, Any] = {"text_type": "document"}
        if _text(inputs[0]).is_query:
            parameters = {"text_type": "query", "instruct": options.instruction}
        parameters |= _if_given("dimension", options.dimensions)
        texts = [_text(i).text for i in inputs]
        return {"model": options.model, "input": {"texts": texts}, "parameters": parameters}

    def read(answer: Any, count: int) -> list[Any]:
        items = member(answer, "output", "embeddings")
        return in_order(items, count, index="text_index", value="embedding")

    url = _dashscope_host(options) + _SERVICES + "/embeddings/text-embedding/text-embedding"
    return [Route("DashScope text-embedding", "text", url, body, read, lambda one: _text(one).is_query)]


def _vllm_reranking(options: _Options) -> list[Route]:
    def read(answer: Any, count: int) -> list[Any]:
        rows = in_order(member(answer, "data"), count, index="index", value="probs")
        return [only_class(row) for row in rows]

    ids = Route(
        "POST /classify",
        "token ids",
        root(options.url) + "/classify",
        lambda inputs: {"model": options.model, "input": [i.token_ids for i in inputs]},
        read,
        takes_ids=True,
    )
    return [ids, _cohere_text(options, root(options.url) + "/rerank")]


def _cohere_reranking(options: _Options) -> list[Route]:
    return [_cohere_text(options, versioned(options.url, "v2") + "/rerank")]


def _jina_reranking(options: _Options) -> list[Route]:
    return [_cohere_text(options, versioned(options.url, "v1") + "/rerank")]


def _cohere_text(options: _Options, url: str) -> Route:
    """Return the route of servers that rerank as Cohere's and Jina's do."""

    def body(inputs: Sequence[Input]) -> dict[str, Any]:
        query, documents = _query_and_documents(options, inputs)
        texts = {"query": query, "documents": documents}
        return {"model": options.model, "top_n": len(inputs), **texts, **_instruction_member(options)}

    return _text_reranking(options, url, body, relevances)


def _tei_reranking(options: _Options) -> list[Route]:
    def body(inputs: Sequence[Input]) -> dict[str, Any]:
        query, texts = _query_and_documents(options, inputs)
        return {"query": query, "texts": texts, **_instruction_member(options)}

    def read(answer: Any, count: int) -> list[Any]:
        return in_order(answer, count, index="index", value="score", best_first=True)

    return [_text_reranking(options, root(options.url) + "/rerank", body, read)]


def _dashscope_reranking(options: _Options) -> list[Route]:
    is_flat = options.model == _FLAT_RERANKER

    def body(inputs: Sequence[Input]) -> dict[str, Any]:
        query, documents = _query_and_documents(options, inputs)
        texts = {"query": query, "documents": documents}
        parameters = {"top_n": len(inputs), "instruct": options.instruction}
        if is_flat:
            return {"model": options.model, **texts, **parameters}
        parameters["return_documents"] = False
        return {"model": options.model, "input": texts, "parameters": parameters}

    def read(answer: Any, count: int) -> list[Any]:
        return relevances(answer if is_flat else member(answer, "output"), count)

    flat, native = "/compatible-api/v1/reranks", _SERVICES + "/rerank/text-rerank/text-rerank"
    url = _dashscope_host(options) + (flat if is_flat else native)
    return [Route("DashScope text-rerank", "text", url, body, read, _query)]


_ROUTES: Final[dict[tuple[ServerName, ModelKind], Callable[[_Options], list[Route]]]] = {
    ("vllm", "embedding"): _vllm_embedding,
    ("vllm", "reranking"): _vllm_reranking,
    ("tei", "embedding"): _tei_embedding,
    ("tei", "reranking"): _tei_reranking,
    ("openai", "embedding"): _openai_embedding,
    ("cohere", "reranking"): _cohere_reranking,
    ("jina", "reranking"): _jina_reranking,
    ("dashscope", "embedding"): _dashscope_embedding,
    ("dashscope", "reranking"): _dashscope_reranking,
}


def _dashscope_host(options: _Options) -> str:
    """Return a base URL without the paths that DashScope's and OpenAI's clients expect after its host."""
    url = root(options.url)
    for path in ("/api", "/compatible-mode", "/compatible-api"):
        url = url.removesuffix(path)
    return url


def _text_reranking(
    options: _Options,
    url: str,
    body: Callable[[Sequence[Input]], dict[str, Any]],
    read_answer: Callable[[Any, int], list[Any]],
) -> Route:
    """Return the route of servers that take one query and documents, and may render the template themselves."""
    is_rendered = options.template == "client"
    return Route(
        "POST /rerank",
        "rendered text" if is_rendered else "text",
        url,
        body,
        read_answer,
        _query,
        tells_instruction=is_rendered or options.instruction_field is not None,
    )


def _instruction_member(options: _Options) -> dict[str, str]:
    """Return the member of a rerank request that holds the instruction; {} if it has none."""
    return {} if options.instruction_field is None else {options.instruction_field: options.instruction}


def _query_and_documents(options: _Options, inputs: Sequence[Input]) -> tuple[str, list[str]]:
    """Return the query that pairs have in common and their documents, rendered if that is the client's part."""
    pairs = [_pair(i) for i in inputs]
    if options.template == "client":
        pairs = [rerank_halves(options.instruction, *pair) for pair in pairs]
    return pairs[0][0], [document for _, document in pairs]


def _if_given(name: str, value: int | None) -> dict[str, int]:
    return {} if value is None else {name: value}


def _embedded(one: Input) -> str:
    text = _text(one)
    return text.prompt + text.text


def _query(one: Input) -> object:
    return _pair(one)[0]


def _text(one: Input) -> Text:
    assert isinstance(one.words, Text), "inputs of embedding models are texts"
    return one.words


def _pair(one: Input) -> Pair:
    assert isinstance(one.words, tuple), "inputs of rerankers are pairs"
    return one.words
