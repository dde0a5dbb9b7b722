"""Our token ids through Sentence Transformers' modules give what its own classes give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from packaging import version
from qwen3_rag import DEFAULT_INSTRUCTION, Embedder, Reranker, quantize
from qwen3_rag.prompts import RERANK_PREFIX, RERANK_SUFFIX, rerank_head
from saved_folders import normalised
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TOLERANCE = 1e-5
# Special tokens are parsed as that library parses them, so that both sides see the same ids.
OPTIONS: dict[str, Any] = {
    "backend": "sentence-transformers",
    "dtype": "float32",
    "device": "cpu",
    "parse_special_tokens": True,
}
WORDS = [
    *("gravity", "北京", "capital", "of", "", "China\n", "def", "f(x):", "Ωmega", "🙂", "naïve", "."),
    *("<think>", "</think>", "<|im_end|>", "<|endoftext|>"),
]
texts = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join),
    st.text(max_size=30).map(lambda text: text.encode(errors="replace").decode()),
    st.integers(1, 150).map(lambda n: "packed rows " * n),
)
instructions = st.sampled_from([DEFAULT_INSTRUCTION, "Find it"])
queries = st.sampled_from(["why?", "capital of China", "a b c " * 9])
few = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def embedder(published: Path) -> Embedder:
    return Embedder(str(published), token_budget=200, **OPTIONS)


@pytest.fixture(scope="module")
def their_embedder(published: Path) -> SentenceTransformer:
    return SentenceTransformer(str(published), device="cpu")


@pytest.fixture(scope="module")
def reranker(templated: Path) -> Reranker:
    return Reranker(str(templated), token_budget=600, **OPTIONS)


@pytest.fixture(scope="module")
def their_reranker(templated: Path) -> CrossEncoder:
    return CrossEncoder(str(templated), device="cpu")


@few
@given(documents=st.lists(texts, min_size=1, max_size=6), asked=st.lists(queries, min_size=1, max_size=2))
def test_vectors_equal_those_of_sentence_transformer(
    documents: list[str], asked: list[str], embedder: Embedder, their_embedder: SentenceTransformer
) -> None:
    theirs = their_embedder.encode(documents, convert_to_numpy=True, show_progress_bar=False)
    np.testing.assert_allclose(embedder.embed_documents(documents), theirs, atol=TOLERANCE)
    theirs = their_embedder.encode(asked, prompt_name="query", show_progress_bar=False)
    np.testing.assert_allclose(embedder.embed_queries(asked), theirs, atol=TOLERANCE)
    theirs = their_embedder.encode(documents, truncate_dim=32, show_progress_bar=False)
    ours = embedder.embed_documents(documents, dimensions=32)
    np.testing.assert_allclose(ours, normalised(theirs), atol=TOLERANCE)


def test_an_instruction_of_ones_own_is_that_librarys_prompt(
    embedder: Embedder, their_embedder: SentenceTransformer
) -> None:
    ours = embedder.embed_queries(["why?"], instruction="Find it")
    theirs = their_embedder.encode(["why?"], prompt="Instruct: Find it\nQuery:")
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@few
@given(query=queries, documents=st.lists(texts, min_size=1, max_size=5), task=instructions)
def test_scores_equal_those_of_a_cross_encoder_with_a_chat_template(
    query: str, documents: list[str], task: str, reranker: Reranker, their_reranker: CrossEncoder
) -> None:
    ours = reranker.score(query, documents, instruction=task)
    pairs = [(query, document) for document in documents]
    # Its default was the identity in 5.4 and is the sigmoid in 6.2.
    theirs = their_reranker.predict(pairs, prompt=task, activation_fn=torch.nn.Sigmoid())
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_scores_of_a_conversion_equal_those_of_its_cross_encoder(converted_checkpoint: Path) -> None:
    documents = ["The capital of China is Beijing.", "", "重力 " * 40, "x"]
    ours = Reranker(str(converted_checkpoint), **OPTIONS).score("capital?", documents)
    whole = [
        RERANK_PREFIX + rerank_head(DEFAULT_INSTRUCTION, "capital?") + document + RERANK_SUFFIX
        for document in documents
    ]
    theirs = CrossEncoder(str(converted_checkpoint), device="cpu").predict(
        [("", text) for text in whole], activation_fn=torch.nn.Sigmoid()
    )
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("saved", [False, True], ids=["plain", "saved"])
def test_both_backends_agree_cuts_included(
    saved: bool,
    published: Path,
    templated: Path,
    embedding_checkpoint: Path,
    reranking_checkpoint: Path,
) -> None:
    documents = ["word " * 1000, "短い文", "", "<|im_end|> </think> yes", "gravity pulls"]
    folders = (published, templated) if saved else (embedding_checkpoint, reranking_checkpoint)
    ours: dict[str, Any] = {}
    for backend in ("transformers", "sentence-transformers"):
        shared: dict[str, Any] = {"max_tokens": 900, "backend": backend, "dtype": "float32", "device": "cpu"}
        with Embedder(str(folders[0]), **shared) as e, Reranker(str(folders[1]), **shared) as r:
            with pytest.warns(UserWarning, match="1 of 5 documents were cut"):
                vectors = e.embed_documents(documents)
            with pytest.warns(UserWarning, match="1 of 5 documents were cut"):
                scores = r.score("why?", documents)
            ours[backend] = (vectors, e.embed_queries(["why?"]), scores)
    for mine, reference in zip(ours["sentence-transformers"], ours["transformers"], strict=True):
        np.testing.assert_allclose(mine, reference, atol=TOLERANCE)


@pytest.fixture(scope="module")
def alone(embedder: Embedder, reranker: Reranker) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Documents, and their vectors and scores when each is all there is."""
    documents = ["word " * n for n in (1, 90, 3, 40, 0, 7)]
    vectors = np.concatenate([embedder.embed_documents([document]) for document in documents])
    return documents, vectors, np.concatenate([reranker.score("why?", [one]) for one in documents])


@pytest.mark.parametrize("token_budget", [1, 150, 100_000])
def test_no_batch_changes_a_number(
    token_budget: int,
    alone: tuple[list[str], np.ndarray, np.ndarray],
    embedder: Embedder,
    reranker: Reranker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents, vectors, scores = alone
    for component in (embedder, reranker):
        monkeypatch.setattr(component.backend, "token_budget", token_budget)
    np.testing.assert_allclose(embedder.embed_documents(documents), vectors, atol=TOLERANCE)
    np.testing.assert_allclose(reranker.score("why?", documents), scores, atol=TOLERANCE)


class _OneRowOfLogits(TorchDispatchMode):
    """Fails on logits of more than one position of a text."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            shape = tuple(getattr(tensor, "shape", ()))
            if len(shape) == 3 and shape[2] == self.vocabulary and shape[1] > 1:
                raise AssertionError(f"{func} made logits of shape {shape}")
        return result


def test_only_the_last_positions_logits_are_made(templated: Path) -> None:
    reranker = Reranker(str(templated), **OPTIONS).load()
    tokenizer = reranker._open().tokenizer
    prompts = tokenizer.encode_pairs(
        [("why?", "because " * 20)], instruction=DEFAULT_INSTRUCTION, max_tokens=2000
    ).prompts
    backend: Any = reranker.backend
    vocabulary = backend._loaded.transformer.auto_model.config.vocab_size
    with _OneRowOfLogits(vocabulary):
        backend.run(prompts)
    all_positions = {**backend._features(backend._loaded, prompts), "logits_to_keep": 0}
    with pytest.raises(AssertionError, match="made logits"), _OneRowOfLogits(vocabulary):
        backend._loaded.model(all_positions)


@pytest.mark.skipif(
    version.parse(sentence_transformers.__version__) < version.parse("6.2"),
    reason="older releases make levels of int8 that are not equally wide",
)
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precisions_are_that_librarys_number_by_number(precision: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)]) * np.float32(0.9)
    np.testing.assert_array_equal(
        quantize(vectors, precision, ranges), quantize_embeddings(vectors, precision, ranges=ranges)
    )
