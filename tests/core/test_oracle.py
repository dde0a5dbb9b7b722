"""Every fast path gives the numbers of the published reference on the same checkpoint."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import (
    SHAPES,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3Model,
    genuine_tokenizer,
    make_checkpoint,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import TASK, EmbeddingOracle, RerankingOracle
from qwen3_rag import PRESETS, Embedder, Reranker
from qwen3_rag.backends.device.choice import computes_bfloat16

TOLERANCE = 1e-5
WORDS = [
    *("gravity", "北京", "capital", "of", "", "China\n", "def", "f(x):", "Ωmega", "🙂", "naïve", "."),
    *("<think>", "</think>", "<|im_end|>", "<|endoftext|>"),
]

texts = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join),
    st.text(max_size=30).map(lambda text: text.encode(errors="replace").decode()),
    st.integers(1, 150).map(lambda n: "packed rows " * n),
)
queries = st.sampled_from(["why?", "capital of China", "a b c " * 9])
instructions = st.one_of(st.none(), st.sampled_from(list(PRESETS.values())), st.just("Find it"))
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# Special tokens are parsed as the snippets do, so that the oracle sees the same ids.
OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu", "parse_special_tokens": True}


@cache
def embedder_of(folder: Path, max_tokens: int) -> Embedder:
    return Embedder(str(folder), max_tokens=max_tokens, **OPTIONS)


@cache
def reranker_of(folder: Path, max_tokens: int, token_budget: int) -> Reranker:
    return Reranker(str(folder), max_tokens=max_tokens, token_budget=token_budget, **OPTIONS)


@pytest.fixture(scope="module", params=["0.6B", "4B", "8B"])
def embedding(request: Any, tmp_path_factory: Any) -> tuple[Path, EmbeddingOracle]:
    folder = tmp_path_factory.mktemp("embedding")
    make_checkpoint(
        folder,
        genuine_tokenizer(appends_end_of_text=True),
        architecture=Qwen3Model,
        shape=SHAPES[request.param],
    )
    return folder, EmbeddingOracle(folder)


@pytest.fixture(scope="module", params=["0.6B tied", "4B tied", "8B untied"])
def reranking(request: Any, tmp_path_factory: Any) -> tuple[Path, RerankingOracle]:
    size, head = request.param.split()
    folder = tmp_path_factory.mktemp("reranking")
    make_checkpoint(
        folder, genuine_tokenizer(appends_end_of_text=False), shape=SHAPES[size], tied=head == "tied", seed=3
    )
    return folder, RerankingOracle(folder)


@many
@given(
    st.lists(texts, min_size=1, max_size=8),
    instructions,
    st.sampled_from([None, 32, 33, 64]),
    st.sampled_from([40, 8192]),
)
def test_embeddings_equal_the_reference(
    embedding: tuple[Path, EmbeddingOracle],
    given_texts: list[str],
    instruction: str | None,
    dimensions: int | None,
    most: int,
) -> None:
    folder, oracle = embedding
    if instruction is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of cut documents
            ours = embedder_of(folder, most).embed_documents(given_texts, dimensions=dimensions)
        expected = oracle.embed(given_texts, dimensions=dimensions, most=most)
    else:
        embedder = embedder_of(folder, 8192)
        ours = embedder.embed_queries(given_texts, instruction=instruction, dimensions=dimensions)
        expected = oracle.embed(given_texts, task=instruction, dimensions=dimensions)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


@many
@given(
    st.lists(
        st.tuples(st.sampled_from(["why?", "capital of China", "a b c " * 9]), texts), min_size=1, max_size=8
    ),
    instructions,
    st.sampled_from([1, 100, 8192]),
    st.sampled_from([200, 8192]),
)
def test_scores_equal_the_reference(
    reranking: tuple[Path, RerankingOracle],
    pairs: list[tuple[str, str]],
    instruction: str | None,
    token_budget: int,
    most: int,
) -> None:
    folder, oracle = reranking
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of cut documents
        ours = reranker_of(folder, most, token_budget).score_pairs(pairs, instruction=instruction)
    expected = oracle.score(pairs, task=TASK if instruction is None else instruction, most=most)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


def test_small_embedding_checkpoints_tell_texts_apart(embedding: tuple[Path, EmbeddingOracle]) -> None:
    """Equality with the reference proves little if all outputs are alike."""
    vectors = embedding[1].embed(["gravity", "capital of China", "def f(x): pass"])
    assert np.abs((vectors @ vectors.T)[np.triu_indices(3, 1)]).max() < 0.9


def test_small_reranking_checkpoints_tell_texts_apart(reranking: tuple[Path, RerankingOracle]) -> None:
    assert np.ptp(reranking[1].score([("why?", word) for word in WORDS])) > 0.1


def test_a_sequence_classification_conversion_scores_like_its_original(tmp_path: Path) -> None:
    tokenizer = genuine_tokenizer(appends_end_of_text=False)
    original, converted = tmp_path / "original", tmp_path / "converted"
    make_checkpoint(original, tokenizer, seed=5)
    make_checkpoint(converted, tokenizer, architecture=Qwen3ForSequenceClassification, seed=5)
    causal = Qwen3ForCausalLM.from_pretrained(original)
    classifier = Qwen3ForSequenceClassification.from_pretrained(converted)
    classifier.model.load_state_dict(causal.model.state_dict())
    head = causal.lm_head.weight.detach()
    classifier.score.weight.data = (head[9693] - head[2152])[None]
    classifier.save_pretrained(converted)
    pairs = [("why?", word) for word in WORDS]
    scores = [
        Reranker(str(folder), dtype="float32", device="cpu").score_pairs(pairs)
        for folder in (original, converted)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=TOLERANCE)


def test_an_embedding_model_saved_as_causal_embeds_like_its_base(tmp_path: Path) -> None:
    tokenizer = genuine_tokenizer(appends_end_of_text=True)
    make_checkpoint(tmp_path / "causal", tokenizer, tied=False)
    Qwen3ForCausalLM.from_pretrained(tmp_path / "causal").model.save_pretrained(tmp_path / "base")
    tokenizer.save(str(tmp_path / "base" / "tokenizer.json"))
    vectors = [Embedder(str(tmp_path / name), **OPTIONS).embed_documents(WORDS) for name in ("causal", "base")]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=TOLERANCE)


def test_bfloat16_stays_close_to_the_reference(tmp_path: Path) -> None:
    tokenizer = genuine_tokenizer(appends_end_of_text=True)
    make_checkpoint(tmp_path, tokenizer, architecture=Qwen3Model, dtype=torch.bfloat16)
    given_texts = [*(word * 20 for word in WORDS), "long " * 700]
    ours = Embedder(str(tmp_path), **{**OPTIONS, "dtype": "bfloat16"}).embed_queries(given_texts)
    reference = EmbeddingOracle(tmp_path, torch.bfloat16).embed(given_texts, task=TASK)
    assert (ours * reference).sum(axis=1).min() >= 0.999


def test_auto_dtype_is_bfloat16_where_the_cpu_computes_it(reranking_checkpoint: Path) -> None:
    with Reranker(str(reranking_checkpoint), device="cpu").load() as reranker:
        backend: Any = reranker.backend
        expected = torch.bfloat16 if computes_bfloat16(torch.device("cpu")) else torch.float32
        assert backend.dtype == expected


def test_the_first_cosines_of_a_process_are_few(
    embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many are computed by several threads, which may get wrong ones while MKL makes ready."""
    counts: list[int] = []
    right = torch.Tensor.cos

    def counted(numbers: torch.Tensor) -> torch.Tensor:
        counts.append(numbers.numel())
        return right(numbers)

    for owner in (torch, torch.Tensor):
        monkeypatch.setattr(owner, "cos", counted)
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "max_queued": 1021}  # an engine of its own
    with Embedder(str(embedding_checkpoint), **options) as embedder:
        embedder.embed_documents(["gravity " * 40])
    assert counts[0] < 100 < max(counts)
