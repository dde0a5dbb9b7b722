"""Copies, copied deeply enough, and rankings, by our own rules where Haystack leaves a choice."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from haystack import Document
from haystack.dataclasses import ByteStream
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder
from haystack_integrations.components.embedders.qwen3_rag.documents import document_texts, own_documents
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from qwen3_rag import Embedder, Reranker, Usage
from qwen3_rag.reranker import Scores
from qwen3_rag.testing.recording import recording


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (Document(content="c", meta={"a": "x", "b": "y"}), "x-y-c"),
        (Document(content="c", meta={"b": "y", "a": None}), "y-c"),
        (Document(content="c", meta={"a": 0, "b": False}), "0-False-c"),
        (Document(content="c", meta={"a": ""}), "-c"),
        (Document(content="", meta={"a": "x"}), "x-"),
        (Document(content=None, meta={"a": "x"}), "x"),
        (Document(content=None), ""),
        (Document(content=None, blob=ByteStream(b"picture")), ""),
    ],
)
def test_text_is_chosen_meta_values_then_content(document: Document, text: str) -> None:
    assert document_texts([document], ["a", "b"], "-") == [text]


def test_message_names_the_document_that_is_none() -> None:
    documents: list[Any] = [Document(content="c"), "text"]
    with pytest.raises(TypeError, match=r"documents\[1\] must be a Document, got str"):
        own_documents(documents)


@pytest.mark.parametrize("kind", ["embedder", "ranker"])
def test_adding_meta_to_a_copy_leaves_the_original_alone(
    kind: str, embedder: Embedder, reranker: Reranker
) -> None:
    document = Document(content="c", meta={"a": 1})
    if kind == "embedder":
        output = Qwen3DocumentEmbedder(embedder=embedder, progress_bar=False).run([document])
    else:
        output = Qwen3Ranker(reranker=reranker).run("q", [document])
    output["documents"][0].meta["b"] = 2
    assert document.meta == {"a": 1}


def test_ranker_keeps_embeddings_and_documents_of_one_id(reranker: Reranker) -> None:
    documents = [Document(id="same", content=text, embedding=[0.5]) for text in ("a", "b")]
    output = Qwen3Ranker(reranker=reranker).run("q", documents)["documents"]
    assert sorted(document.content for document in output) == ["a", "b"]
    assert [document.embedding for document in output] == [[0.5], [0.5]]


def test_top_k_of_zero_computes_nothing(reranker: Reranker) -> None:
    documents = [Document(content="a"), Document(content="b")]
    with recording(reranker) as recorded:
        none = [
            Qwen3Ranker(reranker=reranker, top_k=0).run("q", documents),
            Qwen3Ranker(reranker=reranker, top_k=2).run("q", documents, top_k=0),
            asyncio.run(Qwen3Ranker(reranker=reranker).run_async("q", documents, top_k=0)),
        ]
    assert recorded.rounds == []
    for output in none:
        assert output["documents"] == []
        assert output["meta"]["usage"]["texts"] == output["meta"]["usage"]["computed_tokens"] == 0


def test_nothing_is_loaded_for_nothing() -> None:
    ranker = Qwen3Ranker(model="no/such-model", top_k=0)
    assert ranker.run("q", [Document(content="a")])["documents"] == []
    assert ranker.run("q", [], top_k=1)["documents"] == []
    with pytest.raises(TypeError, match=r"documents\[0\]"):
        ranker.run("q", ["a"])  # type: ignore[list-item]


@pytest.mark.parametrize("given", ["constructor", "run"])
def test_score_of_exactly_zero_reaches_a_threshold_of_zero(given: str) -> None:
    scores = Scores(np.array([0.0, 0.5, 0.0], np.float32), Usage(3))
    documents = [Document(content=text) for text in "abc"]
    ready = Reranker("no/such-model")
    with patch.object(ready, "evaluate", lambda _: scores):
        if given == "constructor":
            found = Qwen3Ranker(reranker=ready, score_threshold=0.0).run("q", documents)["documents"]
        else:
            ranker = Qwen3Ranker(reranker=ready, score_threshold=0.9)
            found = ranker.run("q", documents, score_threshold=0.0)["documents"]
    assert [(document.content, document.score) for document in found] == [("b", 0.5), ("a", 0.0), ("c", 0.0)]


def test_threshold_equal_to_a_score_lets_it_through(reranker: Reranker) -> None:
    ranker = Qwen3Ranker(reranker=reranker)
    (best, *_) = ranker.run("q", [Document(content="a"), Document(content="b")])["documents"]
    (again,) = ranker.run("q", [Document(content="a"), Document(content="b")], score_threshold=best.score)[
        "documents"
    ]
    assert again.id == best.id


@pytest.mark.parametrize("query", [None, ["q"], 3])
def test_query_must_be_a_string_even_without_documents(query: Any, reranker: Reranker) -> None:
    with pytest.raises(TypeError, match="query must be a str"):
        Qwen3Ranker(reranker=reranker).run(query, [])


def test_usage_counts_texts_tokens_and_cuts(embedder: Embedder) -> None:
    component = Qwen3DocumentEmbedder(**{**embedder.arguments, "max_tokens": 8}, progress_bar=False)
    with pytest.warns(UserWarning, match="cut to fit"):
        output = component.run([Document(content="word " * 50), Document(content="one")])
    usage = output["meta"]["usage"]
    assert output["meta"]["model"] == embedder.model
    assert usage["texts"] == 2
    assert usage["truncated_texts"] == 1
    assert usage["total_tokens"] == usage["prompt_tokens"] == 8 + 2
    assert usage["computed_tokens"] <= usage["prompt_tokens"]


def test_progress_bar_appears_only_if_asked_for(embedder: Embedder, capfd: pytest.CaptureFixture[str]) -> None:
    for wanted in (True, False):
        Qwen3DocumentEmbedder(embedder=embedder, progress_bar=wanted).run([Document(content="a")])
        assert ("text/s" in capfd.readouterr().err) is wanted
