"""On a CPU template and instruction are cached from call to call: queries one by one compute them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.transformers.backend import TransformersBackend
from qwen3_rag.backends.transformers.prefix_cache import MAX_CACHED_TOKENS, CachedPrefix, PrefixCache
from qwen3_rag.plan import plan_batches
from qwen3_rag.prompts import EmbeddingWords, query_prompt
from qwen3_rag.tokenization import PromptTokenizer
from qwen3_rag.tokens import Prompt

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
QUERIES = ["gravity", "What is the capital of China?", "", "gravity", "why do stars shine", ":) 北京"]
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def embedder_of(folder: Path, share_prefixes: bool) -> Embedder:
    return Embedder(str(folder), share_prefixes=share_prefixes, **OPTIONS)


def backend_of(embedder: Embedder) -> TransformersBackend:
    backend = embedder.load().backend
    assert isinstance(backend, TransformersBackend)
    return backend


def run(backend: TransformersBackend, sequences: list[list[int]], shared_tokens: int) -> BackendOutput:
    words = EmbeddingWords("", "", is_query=False)
    return backend.run([Prompt(np.array(ids, np.int32), words, 0, shared_tokens) for ids in sequences])


def chosen(prefix_cache: PrefixCache, tokens: int, *sequences: list[int]) -> int:
    """Return how many tokens of a batch are to be computed by themselves."""
    (batch,) = plan_batches([np.array(ids, dtype=np.int32) for ids in sequences], token_budget=1 << 20)
    found = prefix_cache.prefix_worth_caching(batch, tokens)
    if found is None:
        return 0
    assert all(found.tolist() == ids[: len(found)] for ids in sequences)
    return len(found)


def one_by_one(embedder: Embedder, queries: Sequence[str] = QUERIES) -> Iterator[tuple[Any, int]]:
    for query in queries:
        result = embedder.embed([query], role="query")
        yield result.vectors[0], result.usage.computed_tokens


def test_queries_one_by_one_compute_their_instruction_once(embedding_checkpoint: Path) -> None:
    with (
        Embedder(str(embedding_checkpoint), token_budget=779, **OPTIONS) as embedder,
        Embedder(str(embedding_checkpoint), share_prefixes=False, **OPTIONS) as apart,
    ):
        ours, theirs = list(one_by_one(embedder)), list(one_by_one(apart))
    np.testing.assert_allclose([v for v, _ in ours], [v for v, _ in theirs], rtol=0, atol=1e-5)
    shares = [mine / full for (_, mine), (_, full) in zip(ours, theirs, strict=True)]
    assert shares[0] == shares[-1] == 1, 'the last one makes ":)" one token: its prefix is shorter'
    assert max(shares[1:-1]) < 0.5


def test_small_rankings_compute_template_and_instruction_once(reranking_checkpoint: Path) -> None:
    def scores(reranker: Reranker) -> Iterator[tuple[list[float], int]]:
        for query in ("gravity", "What is the capital of China?", "gravity", "why do stars shine"):
            result = reranker.evaluate([(query, "Stars shine."), (query, "Beijing is a capital.")])
            yield list(result.scores), result.usage.computed_tokens

    with (
        Reranker(str(reranking_checkpoint), token_budget=781, **OPTIONS) as reranker,  # in an engine of its own
        Reranker(str(reranking_checkpoint), share_prefixes=False, **OPTIONS) as apart,
    ):
        ours, theirs = list(scores(reranker)), list(scores(apart))
    np.testing.assert_allclose([s for s, _ in ours], [s for s, _ in theirs], rtol=0, atol=1e-5)
    assert max(count for _, count in ours[1:]) < 0.6 * ours[0][1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_call_gives_the_same_bits_whatever_came_before(dtype: Any, embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), dtype=dtype, device="cpu", token_budget=780) as embedder:
        expected = [vector for vector, _ in one_by_one(embedder)]
        embedder.embed_queries(QUERIES)
        prefix_cache: Any = backend_of(embedder)._prefix_cache
        first = next(iter(prefix_cache._prefixes))
        for i in range(60):
            embedder.embed_queries(["gravity"], instruction=f"Find what number {i} is about " * 3)
        assert first not in prefix_cache._prefixes, "it is computed anew"
        again = [vector for vector, _ in one_by_one(embedder, QUERIES[::-1])]
    np.testing.assert_array_equal(expected, again[::-1])


TREE = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=5)
"""Calls of paths: calls begin alike where their paths do."""


@many
@given(TREE, st.data())
def test_calls_in_any_order_give_what_each_gives_alone(
    embedding_checkpoint: Path, calls: list[list[int]], data: st.DataObject
) -> None:
    kept, alone = (backend_of(embedder_of(embedding_checkpoint, share)) for share in (True, False))
    for path in calls:
        common = [token for step in path for token in range(100 * step, 100 * step + 11)]
        endings = data.draw(st.lists(st.lists(st.integers(5, 30), max_size=20), min_size=1, max_size=4))
        shared_tokens = data.draw(st.integers(0, len(common)))
        sequences = [common + ending for ending in endings]
        ours, theirs = run(kept, sequences, shared_tokens), run(alone, sequences, shared_tokens)
        np.testing.assert_allclose(
            ours.values / np.linalg.norm(ours.values, axis=1, keepdims=True),
            theirs.values / np.linalg.norm(theirs.values, axis=1, keepdims=True),
            rtol=0,
            atol=1e-5,
        )
        assert ours.computed.min() >= 0
        assert 1 <= ours.computed.sum() <= theirs.computed.sum()


def test_bfloat16_stays_the_same_to_rounding(embedding_checkpoint: Path) -> None:
    options: dict[str, Any] = {"dtype": "bfloat16", "device": "cpu"}
    with (
        Embedder(str(embedding_checkpoint), **options) as embedder,
        Embedder(str(embedding_checkpoint), share_prefixes=False, **options) as apart,
    ):
        ours = np.array([vector for vector, _ in one_by_one(embedder)])
        theirs = np.array([vector for vector, _ in one_by_one(apart)])
    assert (ours * theirs).sum(1).min() > 0.999


INSTRUCTION = list(range(1000, 1018))


def test_a_query_leaves_its_instruction_to_be_computed_by_itself() -> None:
    prefix_cache = PrefixCache()
    assert chosen(prefix_cache, 18, [*INSTRUCTION, 1, 2]) == 18
    assert chosen(prefix_cache, 18, INSTRUCTION) == 17, "a token is left"
    assert chosen(prefix_cache, 18, [*INSTRUCTION, *range(9)], [*INSTRUCTION, 5]) == 17, "of the root, too"
    assert chosen(prefix_cache, 0, [*INSTRUCTION, 1, 2]) == 0


def test_batches_that_would_gain_little_are_left_alone() -> None:
    prefix_cache = PrefixCache()
    assert chosen(prefix_cache, 18, [*INSTRUCTION, *range(126)]) == 18
    assert chosen(prefix_cache, 18, [*INSTRUCTION, *range(127)]) == 0
    assert chosen(prefix_cache, 7, [*INSTRUCTION, 1, 2]) == 0
    assert chosen(prefix_cache, 18, [1] * 20, [2] * 20) == 0, "they have nothing in common"
    assert chosen(prefix_cache, 18, [*INSTRUCTION, 1], [*INSTRUCTION[:12], 2]) == 11
    assert chosen(prefix_cache, MAX_CACHED_TOKENS + 1, list(range(2000))) == 0
    assert chosen(PrefixCache(0), 18, [*INSTRUCTION, 1, 2]) == 0


def prefix_of(first: int, tokens: int) -> CachedPrefix:
    made = CachedPrefix(np.arange(first, first + tokens, dtype=np.int32))
    made.add_layer(torch.zeros(tokens, 1, 2), torch.zeros(tokens, 1, 2))
    return made


def test_what_is_kept_is_bounded_and_the_least_recently_used_goes_first() -> None:
    prefix_cache = PrefixCache()
    made = [prefix_of(1000 * i, MAX_CACHED_TOKENS // 4) for i in range(5)]
    for prefix in made[:4]:
        prefix_cache.put(prefix)
    assert prefix_cache.get(made[0].token_ids) is made[0]
    prefix_cache.put(made[4])
    kept = [prefix_cache.get(prefix.token_ids) is not None for prefix in made]
    assert kept == [True, False, True, True, True]
    prefix_cache.put(prefix_of(9000, MAX_CACHED_TOKENS))
    assert sum(map(len, prefix_cache._prefixes.values())) == MAX_CACHED_TOKENS


def test_the_tokenizer_tells_what_is_template_and_instruction(embedding_checkpoint: Path) -> None:
    tokenizer = PromptTokenizer.from_folder(embedding_checkpoint)
    prompt = query_prompt("Find it")
    head = tokenizer.encode_texts([""], prompt=prompt, max_tokens=99, is_query=True).token_ids[0][:-1].tolist()
    for text in QUERIES:
        (made,) = tokenizer.encode_texts([text], prompt=prompt, max_tokens=99, is_query=True).prompts
        assert len(head) - 1 <= made.shared_prefix_tokens <= len(head), "the last may merge with the text"
        assert made.token_ids[: made.shared_prefix_tokens].tolist() == head[: made.shared_prefix_tokens]
    (document,) = tokenizer.encode_texts(["gravity"], prompt="", max_tokens=99, is_query=False).prompts
    assert document.shared_prefix_tokens == 0
    pairs = [("what?", "one"), ("why?", "two")]
    first, second = tokenizer.encode_pairs(pairs, instruction="Find it", max_tokens=999).prompts
    assert first.shared_prefix_tokens == second.shared_prefix_tokens > 40
    shared = first.shared_prefix_tokens
    np.testing.assert_array_equal(first.token_ids[:shared], second.token_ids[:shared])


def test_batches_that_did_not_fit_lose_nothing(
    embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Embedder(str(embedding_checkpoint), token_budget=778, **OPTIONS) as embedder:
        backend: Any = embedder.load().backend
        values, failing = backend._values, [True]

        def fails_at_first(*arguments: Any, **options: Any) -> Any:
            found = values(*arguments, **options)
            if failing:
                failing.pop()
                raise torch.OutOfMemoryError("constructed")
            return found

        monkeypatch.setattr(backend, "_values", fails_at_first)
        vectors = embedder.embed_queries(["two", "three"])
        again = [embedder.embed_queries([text])[0] for text in ("two", "three")]
        for kept in backend._prefix_cache._prefixes.values():
            assert {len(key) for key, _ in kept.layers} == {len(kept)}
            assert len(kept.layers) == len(backend._model.decoder.layers)
    assert not failing
    np.testing.assert_allclose(vectors, again, rtol=0, atol=1e-5)


def test_nothing_is_kept_after_close(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), token_budget=777, **OPTIONS)  # an engine of its own
    backend: Any = embedder.load().backend
    for query in QUERIES:
        embedder.embed_queries([query])
    assert backend._prefix_cache._prefixes
    embedder.close()
    assert not backend._prefix_cache._prefixes


def test_share_prefixes_false_keeps_nothing(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), share_prefixes=False, **OPTIONS) as embedder:
        backend: Any = embedder.load().backend
        for query in QUERIES:
            result = embedder.embed([query], role="query")
            assert result.usage.reused_tokens == 0
        assert not backend._prefix_cache._prefixes
