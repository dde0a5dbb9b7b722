"""Wrong input and damaged models give their documented result or one clear error."""

from __future__ import annotations

import asyncio
import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3_rag import (
    ConfigurationError,
    Embedder,
    EngineClosedError,
    MissingExtraError,
    PromptTooLongError,
    Reranker,
)

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def test_no_texts_give_no_rows(embedder: Embedder, reranker: Reranker) -> None:
    assert embedder.embed_documents([]).shape == (0, 64)
    assert embedder.embed_queries([], dimensions=32).shape == (0, 32)
    assert embedder.embed_documents([], precision="int8").dtype == np.int8
    assert reranker.score("why?", []).shape == (0,)
    assert reranker.rerank("why?", []) == []


def test_for_no_pairs_no_model_is_looked_for() -> None:
    reranker = Reranker("no/such-model", **OPTIONS)
    assert reranker.score("why?", []).dtype == reranker.score_pairs([]).dtype == np.float32
    assert asyncio.run(reranker.ascore_pairs([])).shape == (0,)
    assert reranker.rerank("why?", ["a"], top_k=0) == asyncio.run(reranker.arerank("why?", [])) == []
    with pytest.raises(TypeError, match="query must be a str, got int"):
        reranker.score(3, [])  # type: ignore[arg-type]


def test_the_empty_string_has_a_vector_and_a_score(embedder: Embedder, reranker: Reranker) -> None:
    assert np.linalg.norm(embedder.embed_documents([""])) == pytest.approx(1)
    assert 0 <= reranker.score("", [""])[0] <= 1


@pytest.mark.parametrize("wrong", [None, 3, 2.5, b"bytes", ["nested"]])
def test_what_is_not_a_string_is_named_by_its_index(embedder: Embedder, reranker: Reranker, wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"text 2 must be a str, got {kind}"):
        embedder.embed_documents(["a", "b", wrong])
    with pytest.raises(TypeError, match=f"document 1 must be a str, got {kind}"):
        reranker.score("q", ["a", wrong])
    with pytest.raises(TypeError, match=f"query must be a str, got {kind}"):
        reranker.score(wrong, ["a"])
    with pytest.raises(TypeError, match=f"document 1 must be a str, got {kind}"):
        reranker.score_pairs([("q", "a"), ("q", wrong)])


def test_one_string_in_place_of_a_list_is_refused(embedder: Embedder, reranker: Reranker) -> None:
    with pytest.raises(TypeError, match="wrap it in a list"):
        embedder.embed_documents("a single text")
    with pytest.raises(TypeError, match="wrap it in a list"):
        reranker.score("q", "a single text")
    with pytest.raises(TypeError, match=r"pair 0 must be \(query, document\)"):
        reranker.score_pairs(["ab"])  # type: ignore[list-item]


@pytest.mark.parametrize("dimensions", [0, -1, 31, 65])
def test_dimensions_out_of_range_are_refused(embedder: Embedder, dimensions: int) -> None:
    with pytest.raises(ConfigurationError, match=f"dimensions must be 32 (to 64|or more).*got {dimensions}"):
        embedder.embed_documents(["a"], dimensions=dimensions)


def test_options_that_do_not_exist_are_refused_with_those_that_do(embedding_checkpoint: Path) -> None:
    model = str(embedding_checkpoint)
    with pytest.raises(ConfigurationError, match=r"unknown backend 'tpu'; there are: .*transformers"):
        Embedder(model, backend="tpu").load()
    with pytest.raises(ConfigurationError, match="device must be"):
        Embedder(model, device="toaster").load()
    with pytest.raises(ConfigurationError, match=r"not available here; this machine has: .*cpu"):
        Embedder(model, device="cuda:99").load()
    with pytest.raises(ConfigurationError, match="dtype must be one of"):
        Embedder(model, dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="hub must be one of"):
        Embedder(model, hub="github")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="precision must be one of"):
        Embedder(model, **OPTIONS).embed_documents(["a"], precision="int3")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="instruction must not be blank"):
        Embedder(model, instruction=" ")
    with pytest.raises(ConfigurationError, match="documents take no instruction"):
        Embedder(model).embed(["a"], role="document", instruction="Find it")
    with pytest.raises(ConfigurationError, match="max_tokens must be 1 to 32768"):
        Embedder(model, max_tokens=40_000).load()
    with pytest.raises(ConfigurationError, match="token_budget must be 1 or more"):
        Embedder(model, token_budget=0)


def test_a_missing_extra_is_answered_with_the_pip_line(monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "modelscope", None)
    with pytest.raises(MissingExtraError, match=r'pip install "qwen3-rag\[modelscope\]"'):
        Embedder("Qwen/Qwen3-Embedding-0.6B", hub="modelscope").load()


class Task(str, enum.Enum):
    """Formats itself as its name in some releases of Python, and its hash is never its value's."""

    WHOLE = "Find passages about the capital of China"
    PRESET = "code"


class Odd(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    def __format__(self, _: str) -> str:
        return "something else"

    def __add__(self, _: str) -> str:
        return "something else"

    __radd__ = __add__

    def __getitem__(self, _: Any) -> str:
        return "something else"


@pytest.mark.parametrize("text", [Task.WHOLE, Task.PRESET, Odd("The capital of China"), np.str_("The capital")])
def test_a_class_of_strings_changes_no_prompt(text: str, embedder: Embedder, reranker: Reranker) -> None:
    same = str.__str__(text)
    for one, other in ((text, same), (same, text)):
        np.testing.assert_array_equal(
            embedder.embed_queries([one], instruction=one), embedder.embed_queries([other], instruction=other)
        )
        np.testing.assert_array_equal(embedder.embed_documents([one]), embedder.embed_documents([other]))
        np.testing.assert_array_equal(
            reranker.score(one, [one], instruction=one), reranker.score(other, [other], instruction=other)
        )
        np.testing.assert_array_equal(
            reranker.score_pairs([(one, one)]), reranker.score_pairs([(other, other)])
        )


def test_a_query_too_long_is_an_error_that_names_it(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), max_tokens=60, **OPTIONS)
    with pytest.raises(PromptTooLongError, match=r"text 600 .*max_tokens=60"):
        embedder.embed_queries([*(["short"] * 600), "word " * 100])


def test_negative_top_k_is_refused_and_zero_is_none(reranker: Reranker) -> None:
    with pytest.raises(ConfigurationError, match="top_k must be 0 or more"):
        reranker.rerank("q", ["a"], top_k=-1)
    assert reranker.rerank("q", ["a"], top_k=0) == []
    assert len(reranker.rerank("q", ["a", "b"], top_k=9)) == 2


def test_a_closed_component_says_so(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), **OPTIONS) as embedder:
        embedder.embed_documents(["a"])
    with pytest.raises(EngineClosedError, match="Embedder is closed"):
        embedder.embed_documents(["a"])
    embedder.close()
