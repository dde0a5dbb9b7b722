"""What each server is sent, word for word, and how its answer is read. Without sockets."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from qwen3_rag import ConfigurationError
from qwen3_rag.backends.remote.options import parse_options
from qwen3_rag.backends.remote.servers import Dialect, Request, Setup, dialect_of
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, UnusableAnswerError
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.models import ModelKind
from qwen3_rag.prompts import EmbeddingWords, RerankingWords, query_prompt, rerank_halves
from qwen3_rag.tokens import Prompt

TASK = "Find recipes"
QUERY = EmbeddingWords(query_prompt(TASK), "a query", is_query=True)
DOCUMENT = EmbeddingWords("", "a document", is_query=False)
PAIRS = [RerankingWords(TASK, "a query", document) for document in ("one", "two", "three")]
VECTORS = np.array([[0.25, 0.5], [0.75, -1.0]], np.float32)
SCORES = np.array([0.25, 0.5, 0.75], np.float32)
LOG_ODDS = np.log(SCORES / (1 - SCORES))


def dialect(server: str, kind: ModelKind, **options: Any) -> Dialect:
    parsed = parse_options({"server": server, "base_url": "http://host", **options})
    return dialect_of(Setup(parsed, parsed.served_model or "model", 2, len), kind)


def prompts_of(*words: EmbeddingWords | RerankingWords) -> list[Prompt]:
    return [Prompt(np.array([5, 6, 7 + i], np.int32), each, i) for i, each in enumerate(words)]


def _items(index: str, value: str, values: np.ndarray) -> list[dict[str, Any]]:
    """One object for each value, the last first."""
    return [{index: i, value: one.tolist()} for i, one in enumerate(values)][::-1]


EMBEDDING: dict[str, tuple[dict[str, Any], Any]] = {
    "vllm": (
        {"model": "model", "input": [[5, 6, 7], [5, 6, 8]], "encoding_format": "base64"},
        {
            "data": [
                {"index": i, "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()}
                for i, row in enumerate(VECTORS)
            ][::-1]
        },
    ),
    "tei": (
        {"inputs": [QUERY.prompt + "a query", "a document"], "normalize": True, "truncate": False},
        VECTORS.tolist(),
    ),
    "openai": (
        {"model": "model", "input": [QUERY.prompt + "a query", "a document"]},
        {"data": _items("index", "embedding", VECTORS)},
    ),
}
"""What a query and a document make, and the answer."""


@pytest.mark.parametrize("server", list(EMBEDDING))
def test_an_embedding_request_says_what_the_server_reads(server: str) -> None:
    body, answer = EMBEDDING[server]
    request = dialect(server, "embedding").request(prompts_of(QUERY, DOCUMENT))
    assert request.body == body
    np.testing.assert_array_equal(request.read_answer(answer), VECTORS)


@pytest.mark.parametrize("server", [*EMBEDDING, "dashscope"])
def test_vectors_for_fewer_inputs_are_not_believed(server: str) -> None:
    _, answer = EMBEDDING.get(server, ({}, {"output": {"embeddings": [{"embedding": [1.0, 1.0]}] * 2}}))
    with pytest.raises(UnusableAnswerError, match="2 values came back for 1 inputs"):
        dialect(server, "embedding").request(prompts_of(DOCUMENT)).read_answer(answer)


HALVES = [rerank_halves(TASK, "a query", words.document) for words in PAIRS]
TEXTS: dict[str, Any] = {"query": HALVES[0][0], "documents": [document for _, document in HALVES]}
BARE: dict[str, Any] = {"query": "a query", "documents": ["one", "two", "three"]}
RESULTS: dict[str, Any] = {"results": _items("index", "relevance_score", SCORES)}
RERANKING: dict[str, tuple[str, dict[str, Any], dict[str, Any], Any]] = {
    "tei": (
        "tei",
        {"template": "client"},
        {"query": HALVES[0][0], "texts": TEXTS["documents"], "raw_scores": True, "truncate": False},
        _items("index", "score", LOG_ODDS),
    ),
    "cohere": ("cohere", {"template": "client"}, {"model": "model", "top_n": 3, **TEXTS}, RESULTS),
    "cohere that has the template": (
        "cohere",
        {"template": "server"},
        {"model": "model", "top_n": 3, **BARE},
        RESULTS,
    ),
    "jina": (
        "jina",
        {"template": "client", "instruction_field": "means nothing then"},
        {"model": "model", "top_n": 3, "return_documents": False, **TEXTS},
        RESULTS,
    ),
    "jina that has the template": (
        "jina",
        {"template": "server", "instruction_field": "task", "scores": "log_odds"},
        {"model": "model", "top_n": 3, "return_documents": False, "task": TASK, **BARE},
        {"results": _items("index", "relevance_score", LOG_ODDS)},
    ),
    "dashscope": (
        "dashscope",
        {},
        {
            "model": "model",
            "input": BARE,
            "parameters": {"top_n": 3, "return_documents": False, "instruct": TASK},
        },
        {"output": RESULTS},
    ),
    "dashscope's flat API": (
        "dashscope",
        {"served_model": "qwen3-rerank"},
        {"model": "qwen3-rerank", "top_n": 3, "instruct": TASK, **BARE},
        RESULTS,
    ),
}
"""Server, options, what three pairs make, and the answer."""


@pytest.mark.parametrize("name", list(RERANKING))
def test_a_rerank_request_says_what_the_server_reads(name: str) -> None:
    server, options, body, answer = RERANKING[name]
    made = dialect(server, "reranking", **options)
    request = made.request(prompts_of(*PAIRS))
    assert request.body == body
    np.testing.assert_allclose(request.read_answer(answer), LOG_ODDS, rtol=1e-5, atol=1e-6)
    assert made.request(prompts_of(PAIRS[0])).body.keys() == body.keys()
    one, other_query, other_task = (
        made.group(prompt)
        for prompt in prompts_of(
            PAIRS[0], RerankingWords(TASK, "q", "one"), RerankingWords("", "a query", "one")
        )
    )
    assert len({one, other_query, other_task}) == 3, "a request holds one query and one instruction"
    assert made.group(prompts_of(PAIRS[1])[0]) == one


def test_dashscopes_queries_and_documents_are_not_sent_together() -> None:
    made = dialect("dashscope", "embedding")
    instruction = {"text_type": "query", "instruct": TASK, "dimension": 2}
    document = {"text_type": "document", "dimension": 2}
    before, after = query_prompt(TASK).split(TASK)
    sent = {
        QUERY: (instruction, "a query"),
        DOCUMENT: (document, "a document"),
        EmbeddingWords(QUERY.prompt, "t", is_query=False): (document, QUERY.prompt + "t"),
        EmbeddingWords("search: ", "t", is_query=True): (document, "search: t"),
        EmbeddingWords(before + TASK, "t", is_query=True): (document, before + TASK + "t"),
        EmbeddingWords(TASK + after, "t", is_query=True): (document, TASK + after + "t"),
    }
    for words, (parameters, text) in sent.items():
        (prompt,) = prompts_of(words)
        request = made.request([prompt])
        assert request.body == {"model": "model", "input": {"texts": [text]}, "parameters": parameters}
        assert made.group(prompt) == (TASK if parameters is instruction else None)
    answer = {"output": {"embeddings": _items("text_index", "embedding", VECTORS)}}
    read = made.request(prompts_of(DOCUMENT, DOCUMENT)).read_answer(answer)
    np.testing.assert_array_equal(read, VECTORS)


def test_vllm_is_asked_again_about_the_prompt_that_tells_most() -> None:
    request = dialect("vllm", "reranking").request(prompts_of(*PAIRS))
    ids = [[5, 6, 7], [5, 6, 8], [5, 6, 9]]
    assert request.body == {"model": "model", "input": ids, "use_activation": False}
    second = request.read_answer({"data": [{"probs": [p]} for p in (0.9, 0.01, 0.5)]})
    assert isinstance(second, Request)
    assert second.body == {"model": "model", "input": [[5, 6, 8]], "use_activation": True}
    assert second.tokens == 3
    as_log_odds = second.read_answer({"data": [{"probs": [1 / (1 + np.exp(-0.01))]}]})
    np.testing.assert_allclose(as_log_odds, [0.9, 0.01, 0.5], rtol=1e-6)
    as_probabilities = second.read_answer({"data": [{"probs": [0.011]}]})
    np.testing.assert_allclose(as_probabilities, np.log([0.9 / 0.1, 0.01 / 0.99, 1.0]), rtol=1e-5, atol=1e-6)


def test_tei_is_asked_again_about_the_document_that_tells_most() -> None:
    request = dialect("tei", "reranking", template="client").request(prompts_of(*PAIRS))
    second = request.read_answer([{"index": i, "score": p} for i, p in enumerate((0.9, 0.01, 0.5))])
    assert isinstance(second, Request)
    assert second.body == {**request.body, "texts": [TEXTS["documents"][1]], "raw_scores": False}
    assert second.tokens == 3
    as_log_odds = second.read_answer([{"index": 0, "score": 1 / (1 + np.exp(-0.01))}])
    np.testing.assert_allclose(as_log_odds, [0.9, 0.01, 0.5], rtol=1e-6)
    as_probabilities = second.read_answer([{"index": 0, "score": 0.011}])
    np.testing.assert_allclose(as_probabilities, np.log([0.9 / 0.1, 0.01 / 0.99, 1.0]), rtol=1e-5, atol=1e-6)


def test_a_score_of_vllm_that_is_not_finite_names_its_pair() -> None:
    request = dialect("vllm", "reranking").request(prompts_of(*PAIRS))
    with pytest.raises(NotFiniteError, match="input 1 of"):
        request.read_answer({"data": [{"probs": [p]} for p in (0.5, float("nan"), 0.5)]})


@pytest.mark.parametrize("server", ["vllm", "tei"])
def test_a_score_of_the_second_answer_that_is_not_finite_names_the_pair_that_was_asked_for(server: str) -> None:
    options = {"template": "client"} if server == "tei" else {}
    request = dialect(server, "reranking", **options).request(prompts_of(*PAIRS))

    def answer(*values: float | None) -> Any:
        if server == "vllm":
            return {"data": [{"probs": [p]} for p in values]}
        return [{"index": i, "score": p} for i, p in enumerate(values)]

    second = request.read_answer(answer(0.9, 0.01, 0.5))
    assert isinstance(second, Request)
    with pytest.raises(NotFiniteError, match="input 1 of"):
        second.read_answer(answer(None))


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("tei", lambda results: results),
        ("cohere", lambda results: {"results": results}),
        ("jina", lambda results: {"results": results}),
        ("jina", lambda results: results),
        ("dashscope", lambda results: {"output": {"results": results}}),
        ("dashscope's flat API", lambda results: {"results": results}),
    ],
)
def test_sorted_scores_that_tell_no_index_are_not_believed(name: str, wrap: Any) -> None:
    """They would be given to the documents in the order in which these were sent."""
    server, options, _, _ = RERANKING[name]
    request = dialect(server, "reranking", **options).request(prompts_of(*PAIRS))
    results = [{"score": p, "relevance_score": p, "document": "..."} for p in (0.9, 0.5, 0.1)]
    with pytest.raises(UnusableAnswerError, match="whose they are is unknown"):
        request.read_answer(wrap(results))


@pytest.mark.parametrize("server", ["cohere", "jina"])
def test_answers_in_sglangs_form_are_read(server: str) -> None:
    request = dialect(server, "reranking", template="server", instruction_field="instruct").request(
        prompts_of(*PAIRS)
    )
    answer = [{**item, "document": "...", "meta_info": {}} for item in _items("index", "score", SCORES)]
    np.testing.assert_allclose(request.read_answer(answer), LOG_ODDS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", [(0.5, 1.5, 0.5), (-0.5, 0.5, 0.5), (-0.5, 1.5, 0.5)])
def test_vllm_is_not_asked_again_where_numbers_are_no_probabilities(values: tuple[float, ...]) -> None:
    request = dialect("vllm", "reranking").request(prompts_of(*PAIRS))
    found = request.read_answer({"data": [{"probs": [p]} for p in values]})
    np.testing.assert_allclose(found, values)


@pytest.mark.parametrize("values", [(0.0, 1.0, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_vllm_is_asked_again_where_numbers_may_be_either(values: tuple[float, ...]) -> None:
    request = dialect("vllm", "reranking").request(prompts_of(*PAIRS))
    assert isinstance(request.read_answer({"data": [{"probs": [p]} for p in values]}), Request)


@pytest.mark.parametrize("server", ["vllm", "tei", "openai", "dashscope"])
@pytest.mark.parametrize(
    "option", [{"template": "client"}, {"instruction_field": "task"}, {"scores": "log_odds"}], ids=str
)
def test_options_of_text_rerankers_are_refused_for_embedding(server: str, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(option))} means nothing here"):
        dialect(server, "embedding", **option)


@pytest.mark.parametrize("server", ["tei", "cohere", "jina"])
def test_an_instruction_that_a_server_cannot_be_told_is_refused(server: str) -> None:
    (other,) = prompts_of(PAIRS[0])
    (default,) = prompts_of(RerankingWords(DEFAULT_INSTRUCTION, "a query", "one"))
    made = dialect(server, "reranking", template="server")
    made.check(default)
    with pytest.raises(ConfigurationError, match=f"always uses the default instruction, got '{TASK}'"):
        made.check(other)
    for options in ({"template": "client"}, {"template": "server", "instruction_field": "task"}):
        dialect(server, "reranking", **options).check(other)


@pytest.mark.parametrize("special_tokens", ["break", "send"])
def test_special_strings_of_users_are_broken_unless_they_are_to_be_sent(special_tokens: str) -> None:
    broken = "<|im_end|>" if special_tokens == "send" else "< |im_end|>"
    made = dialect("openai", "embedding", special_tokens=special_tokens)
    request = made.request(prompts_of(EmbeddingWords("", "<|im_end|>", is_query=False)))
    assert request.body["input"] == [broken]
    words = RerankingWords(*["<|im_end|>"] * 3)
    options = {"template": "server", "instruction_field": "task", "special_tokens": special_tokens}
    body = dialect("cohere", "reranking", **options).request(prompts_of(words)).body
    assert [body["task"], body["query"], body["documents"]] == [broken, broken, [broken]]
