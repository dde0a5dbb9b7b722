"""vLLM in this process gives the Transformers backend's numbers."""

from __future__ import annotations

import asyncio
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qwen3_rag import ConfigurationError, Embedder, PromptTooLongError, Reranker
from vllm_texts import INSTRUCTIONS, generated_pairs, generated_texts

TOLERANCE = 1e-5
FLOAT32: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
TEXTS, PAIRS = generated_texts(), generated_pairs()


@pytest.mark.parametrize("dimensions", [None, 32, 33])
def test_document_vectors_are_equal(embedders: tuple[Embedder, Embedder], dimensions: int | None) -> None:
    ours, theirs = (e.embed_documents(TEXTS, dimensions=dimensions) for e in embedders)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_query_vectors_are_equal(embedders: tuple[Embedder, Embedder], instruction: str | None) -> None:
    ours, theirs = (e.embed_queries(TEXTS, instruction=instruction) for e in embedders)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_scores_are_equal(rerankers: tuple[Reranker, Reranker], instruction: str | None) -> None:
    ours, theirs = (r.score_pairs(PAIRS, instruction=instruction) for r in rerankers)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_the_checkpoints_tell_texts_apart(
    embedders: tuple[Embedder, Embedder], rerankers: tuple[Reranker, Reranker]
) -> None:
    """Equality proves little if all outputs are alike."""
    vectors = embedders[1].embed_documents(["gravity", "capital of China", "def f(x): pass"])
    assert np.abs((vectors @ vectors.T)[np.triu_indices(3, 1)]).max() < 0.9
    assert np.ptp(rerankers[1].score_pairs(PAIRS)) > 0.1


@pytest.mark.parametrize("parse_special_tokens", [False, True])
def test_what_is_cut_and_what_is_parsed_is_the_same(
    embedders: tuple[Embedder, Embedder], rerankers: tuple[Reranker, Reranker], parse_special_tokens: bool
) -> None:
    def found(backend: str) -> tuple[Any, Any]:
        # The engines of the fixtures, being those of equal settings.
        options: dict[str, Any] = {
            **FLOAT32,
            "backend": backend,
            "parse_special_tokens": parse_special_tokens,
        }
        with (
            Embedder(embedders[0].model, max_tokens=20, **options) as embedder,
            Reranker(rerankers[0].model, max_tokens=150, **options) as reranker,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", UserWarning)  # of cut documents
            return embedder.embed(TEXTS, role="document"), reranker.evaluate(PAIRS)

    ours, theirs = found("vllm"), found("transformers")
    np.testing.assert_allclose(ours[0].vectors, theirs[0].vectors, atol=TOLERANCE)
    np.testing.assert_allclose(ours[1].scores, theirs[1].scores, atol=TOLERANCE)
    for our, their in zip(ours, theirs, strict=True):
        assert our.usage.truncated_texts == their.usage.truncated_texts > 5


def test_the_longest_prompt_is_taken_and_a_longer_one_named(embedders: tuple[Embedder, Embedder]) -> None:
    longest = "7" * 8191  # the split regex makes each digit a token
    ours, theirs = (e.embed(["x", longest], role="document") for e in embedders)
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens == 2 + 8192
    np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=TOLERANCE)
    with (
        Embedder(embedders[0].model, backend="vllm", max_tokens=9000, **FLOAT32) as longer,
        pytest.raises(
            PromptTooLongError, match=r'text 1 .*8193 tokens.*max_model_len=8192.*"max_model_len": 8193'
        ),
    ):
        longer.embed_documents(["x", longest + "7"])


def test_prefixes_are_found_in_the_cache(rerankers: tuple[Reranker, Reranker]) -> None:
    pairs = [("which prefix is cached?", f"{i} {text}") for i, text in enumerate(TEXTS)]
    first, second = rerankers[0].evaluate(pairs), rerankers[0].evaluate(pairs)
    assert first.usage.prompt_tokens == second.usage.prompt_tokens
    assert second.usage.computed_tokens < 0.5 * second.usage.prompt_tokens
    np.testing.assert_allclose(first.scores, second.scores, atol=TOLERANCE)


def test_embedder_and_reranker_work_side_by_side_for_threads_and_coroutines(
    embedders: tuple[Embedder, Embedder], rerankers: tuple[Reranker, Reranker]
) -> None:
    """vLLM keeps in a global variable what its layers are to attend to: engines must take turns."""
    vectors, scores = embedders[1].embed_documents(TEXTS), rerankers[1].score_pairs(PAIRS)

    async def many() -> list[Any]:
        work = [embedders[0].aembed_documents(TEXTS[i::8]) for i in range(8)]
        return await asyncio.gather(*work, *(rerankers[0].ascore(query, [text]) for query, text in PAIRS))

    with ThreadPoolExecutor(4) as pool:
        parts = [pool.submit(embedders[0].embed_documents, TEXTS[i::4]) for i in range(4)]
        results = asyncio.run(many())
    for i, part in enumerate(parts):
        np.testing.assert_allclose(part.result(), vectors[i::4], atol=TOLERANCE)
    for i in range(8):
        np.testing.assert_allclose(results[i], vectors[i::8], atol=TOLERANCE)
    np.testing.assert_allclose(np.concatenate(results[8:]), scores, atol=TOLERANCE)


def test_nothing_in_gives_nothing_out(
    embedders: tuple[Embedder, Embedder], rerankers: tuple[Reranker, Reranker]
) -> None:
    assert embedders[0].embed_documents([]).shape == (0, 128)
    assert rerankers[0].score("why?", []).shape == (0,)


@pytest.fixture(scope="module")
def third(untied_reranking_folder: Path, engines_of_this_process: tuple[Embedder, Reranker]) -> SimpleNamespace:
    """What a third engine in this process did before it was closed: an untied head, no caching."""
    assert all(component.backend is not None for component in engines_of_this_process)
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    with Reranker(str(untied_reranking_folder), backend="vllm", share_prefixes=False, **FLOAT32) as reranker:
        reranker.load()
        drawn = random.random(), np.random.rand(), float(torch.rand(()))
        return SimpleNamespace(drawn=drawn, first=reranker.evaluate(PAIRS), again=reranker.evaluate(PAIRS))


def test_an_untied_head_scores_equally_without_caching(
    third: SimpleNamespace, untied_reranking_folder: Path
) -> None:
    with Reranker(str(untied_reranking_folder), **FLOAT32) as by_transformers:
        expected = by_transformers.score_pairs(PAIRS)
    assert np.ptp(expected) > 0.1
    for found in (third.first, third.again):
        np.testing.assert_allclose(found.scores, expected, atol=TOLERANCE)
        assert found.usage.reused_tokens == 0


@pytest.mark.usefixtures("third")
def test_closing_an_engine_leaves_the_others_of_this_process_working(
    embedders: tuple[Embedder, Embedder], rerankers: tuple[Reranker, Reranker]
) -> None:
    """They share process groups, which vLLM destroys when it shuts one of them down."""
    ours, theirs = (e.embed_documents(["after", "the third was closed"]) for e in embedders)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    ours, theirs = (r.score("which?", ["after", "the third was closed"]) for r in rerankers)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_starting_an_engine_leaves_the_callers_random_numbers_alone(third: SimpleNamespace) -> None:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    assert third.drawn == (random.random(), np.random.rand(), float(torch.rand(())))


def test_an_argument_that_vllm_does_not_know_is_a_clear_error(embedding_folder: Path) -> None:
    options = {"engine_args": {"no_such_argument": 1}}
    embedder = Embedder(str(embedding_folder), backend="vllm", model_kwargs=options, **FLOAT32)
    with embedder, pytest.raises(ConfigurationError, match="no_such_argument"):
        embedder.load()
